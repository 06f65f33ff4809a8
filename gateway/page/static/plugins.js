// The plugins in use, what they are set to, and where that came from.
import { count, h, id, setText } from "./dom.js";

/** view is {element, show(), update(), leave()}; what was set is shown, the defaults are folded until they are asked for. */
export function view(state) {
	const filter = h("input", { type: "search", id: id(), placeholder: "Filter", autocomplete: "off", spellcheck: "false" });
	const found = h("p", { class: "found", role: "status" });
	const body = h("div", {});
	const bar = h("div", { class: "filter" }, h("label", { for: filter.id, class: "hidden" }, "Filter settings"), filter, found);
	const element = h("article", { class: "single" }, h("div", { class: "headline" }, h("h1", { tabindex: -1 }, "Plugins")),
		h("p", { class: "lead" }, "What this gateway was put together from when it started, and where each setting came from. Secrets are masked."), bar, body);
	let drawn; // what the page was told, when it was drawn
	let sections = [];

	function draw() {
		if (drawn === state.about && body.firstChild) return;
		drawn = state.about;
		sections = drawn ? sectionsOf(drawn) : [];
		const nothing = h("p", { class: "empty" }, drawn ? "The gateway said nothing of its settings." : "Not read yet.");
		body.replaceChildren(...(sections.length ? sections.map((s) => s.element) : [nothing]));
		bar.hidden = sections.length === 0;
		narrow();
	}

	/** narrow shows what has all words of the filter, or everything, as it was at first. */
	function narrow() {
		const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
		const has = (text) => words.every((w) => text.includes(w));
		let [all, set, left] = [0, 0, 0];
		for (const s of sections) {
			for (const c of s.cards) {
				for (const r of c.rows) {
					r.element.hidden = !has(r.text);
					all++;
					if (r.set) set++;
					if (!r.element.hidden) left++;
				}
				const of = (rows) => rows.some((r) => !r.element.hidden);
				c.element.hidden = !of(c.rows) && !has(c.text);
				for (const t of c.tables) {
					(t.folded ?? t.element).hidden = !of(t.rows);
					if (t.folded) t.folded.open = words.length > 0;
				}
			}
			s.element.hidden = !has(s.text) && s.cards.every((c) => c.element.hidden);
		}
		setText(found, words.length ? `${left} of ${count(all, "setting")}` : `${set} of ${count(all, "setting")} set`);
	}
	filter.addEventListener("input", narrow);

	return { element, show: draw, update: draw, leave() {}, title: () => "Plugins" };
}

/** sectionsOf are {element, text, cards, chosen}: what somebody set or chose first, kinds without a plugin last. */
function sectionsOf(about) {
	const left = new Map((about.settings ?? []).map((s) => [s.key, s]));
	const sections = (about.kinds ?? []).map((k) => kind(k, left));
	if (left.size) {
		const own = card("the gateway itself", null, [...left.values()]);
		sections.unshift({ element: h("section", { class: "kind" }, h("h2", {}, "The gateway itself"), own.element), text: own.text, cards: [own] });
	}
	const rank = (s) => (s.chosen || s.cards.some((c) => c.rows.some((r) => r.set)) ? 2 : s.cards.length > 0);
	return sections.sort((a, b) => rank(b) - rank(a));
}

/** kind takes what it shows out of left. */
function kind(k, left) {
	const choice = left.get(k.flag.replace(/^--/, ""));
	const names = (choice?.value ?? "").split(",").map((s) => s.trim()).filter(Boolean);
	if (choice) left.delete(choice.key);
	const others = k.plugins.filter((p) => !names.includes(p.name));
	const cards = names.map((n) => plugin(k, k.plugins.find((p) => p.name === n) ?? { name: n, options: [] }, choice, left));
	const element = h("section", { class: "kind" },
		h("h2", {}, k.name, h("span", { class: "meta" }, k.doc ?? "")),
		names.length === 0 ? h("p", { class: "hint" }, "None is chosen.") : null,
		cards.map((c) => c.element),
		others.length ? h("p", { class: "hint others" }, "Also linked: ", others.map((p, i) => [i ? ", " : "", h("span", { title: p.doc }, p.name)])) : null);
	return { element, text: lower(k.name, k.doc, k.flag, k.env, k.plugins.map((p) => p.name)), cards, chosen: names.length > 0 && choice.origin !== "default" };
}

function plugin(k, p, choice, left) {
	const own = [];
	for (const o of p.options) {
		const s = left.get(o.flag.replace(/^--/, ""));
		if (!s) continue;
		left.delete(s.key);
		own.push(s);
	}
	return card([k.name, k.flag, k.env, p.name, p.doc], h("div", { class: "headline" }, h("h3", {}, p.name),
		h("span", { class: "origin" }, choice.origin === "default" ? "by default" : `by ${choice.origin}`), p.doc ? h("p", { class: "hint" }, p.doc) : null), own);
}

const lower = (...texts) => texts.flat().join("\n").toLowerCase();

/** card is {element, text, rows, tables}. */
function card(about, head, settings) {
	const text = lower(about);
	const rows = settings.map((s) => ({ text: `${text}\n${lower(s.key, s.env, s.help, s.value, s.origin)}`, set: s.origin !== "default", element: row(s) }));
	const tables = [true, false].map((set) => rows.filter((r) => r.set === set)).filter((list) => list.length).map(table);
	const [set, rest] = [tables.find((t) => t.rows[0].set), tables.find((t) => !t.rows[0].set)];
	if (rest) rest.folded = h("details", { class: "defaults" }, h("summary", {}, count(rest.rows.length, "setting"), " at the default"), rest.element);
	return { element: h("div", { class: "plugin" }, head, set?.element, rest?.folded), text, rows, tables };
}

function table(rows) {
	const element = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Settings" }, h("table", {},
		h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Setting"), h("th", { scope: "col" }, "Value"), h("th", { scope: "col" }, "From"))),
		h("tbody", {}, rows.map((r) => r.element))));
	return { element, rows };
}

function row(s) {
	return h("tr", { class: s.origin === "default" ? "default" : "" },
		h("th", { scope: "row" }, h("code", {}, s.key), s.help ? h("span", { class: "why" }, s.help) : null),
		h("td", {}, s.value === "" ? h("span", { class: "hint" }, "not set") : h("code", {}, s.value)), h("td", { class: "origin", "data-label": "From" }, s.origin));
}
