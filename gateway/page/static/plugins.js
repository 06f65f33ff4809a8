// The plugins in use, what they are set to, and where that came from.
import { h } from "./dom.js";

export function view(state) {
	const element = h("article", { class: "single" });
	return {
		element,
		show() {
			element.replaceChildren(h("div", { class: "headline" }, h("h1", { tabindex: -1 }, "Plugins")),
				h("p", { class: "lead" }, "What this gateway was put together from when it started, and where each setting came from. Secrets are masked."), ...kinds(state.about));
		},
		update() {},
		leave() {},
		title: () => "Plugins",
	};
}

function kinds(about) {
	if (!about) return [h("p", { class: "empty" }, "Not read yet.")];
	const left = new Map((about.settings ?? []).map((s) => [s.key, s]));
	const sections = (about.kinds ?? []).map((k) => kind(k, left));
	sections.sort((a, b) => b.used - a.used);
	const rest = [...left.values()];
	const all = sections.map((s) => s.element);
	if (rest.length) all.push(h("section", { class: "kind" }, h("h2", {}, "The gateway itself"), settings(rest, (s) => s.key)));
	return all.length ? all : [h("p", { class: "empty" }, "The gateway said nothing of its settings.")];
}

/** kind takes what it shows out of left. */
function kind(k, left) {
	const choice = left.get(k.flag.replace(/^--/, ""));
	const names = (choice?.value ?? "").split(",").map((s) => s.trim()).filter(Boolean);
	if (choice) left.delete(choice.key);
	const chosen = k.plugins.filter((p) => names.includes(p.name));
	const others = k.plugins.filter((p) => !names.includes(p.name));
	const element = h("section", { class: "kind" },
		h("h2", {}, k.name, h("span", { class: "meta" }, k.doc ?? "")),
		names.length === 0 ? h("p", { class: "hint" }, "None is chosen.") : null,
		chosen.map((p) => plugin(p, choice, left)),
		names.filter((n) => !chosen.some((p) => p.name === n)).map((n) => h("p", {}, h("code", {}, n), " ", h("span", { class: "origin" }, choice.origin))),
		others.length ? h("p", { class: "hint others" }, "Also linked: ", others.map((p, i) => [i ? ", " : "", h("span", { title: p.doc }, p.name)])) : null);
	return { element, used: Number(names.length > 0) };
}

function plugin(p, choice, left) {
	const own = [];
	for (const o of p.options) {
		const s = left.get(o.flag.replace(/^--/, ""));
		if (!s) continue;
		left.delete(s.key);
		own.push({ ...s, name: o.name });
	}
	return h("div", { class: "plugin" },
		h("div", { class: "headline" }, h("h3", {}, p.name), h("span", { class: "origin" }, `${choice.origin === "default" ? "by default" : `by ${choice.origin}`}`), p.doc ? h("p", { class: "hint" }, p.doc) : null),
		own.length ? settings(own, (s) => s.name) : null);
}

function settings(list, name) {
	return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Settings" }, h("table", {},
		h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Setting"), h("th", { scope: "col" }, "Value"), h("th", { scope: "col" }, "From"))),
		h("tbody", {}, list.map((s) => h("tr", { class: s.origin === "default" ? "default" : "" },
			h("th", { scope: "row" }, h("code", {}, name(s)), s.help ? h("span", { class: "why" }, s.help) : null),
			h("td", {}, s.value === "" ? h("span", { class: "hint" }, "not set") : h("code", {}, s.value)), h("td", { class: "origin", "data-label": "From" }, s.origin))))));
}
