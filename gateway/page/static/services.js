// The services: a list that can be filtered, and one of them with its nodes and endpoints.
import { arrange, count, duration, h, id, setText } from "./dom.js";
import { caller } from "./call.js";

const probing = 5000; // ms between looks at the nodes that are shown

/** view is {element, show(name, endpoint), update(), leave()}; state has services, ready, about. */
export function view(state) {
	const filter = h("input", { type: "search", id: id(), placeholder: "Filter", autocomplete: "off", spellcheck: "false" });
	const found = h("p", { class: "found", role: "status" });
	const list = h("ul", { class: "list" });
	const aside = h("section", { class: "side", "aria-label": "Services" },
		h("div", { class: "filter" }, h("label", { for: filter.id, class: "hidden" }, "Filter services"), filter, found), list);
	const detail = h("div", { class: "detail" });
	const nothing = h("div", { class: "empty" });
	const element = h("div", { class: "services" }, aside, detail);
	const links = new Map(); // by name
	let current = null; // the service that is shown
	let wanted = ""; // its name
	let toOpen = ""; // an endpoint of it, once that is known

	filter.addEventListener("input", renderList);
	filter.addEventListener("keydown", (e) => {
		if (e.key === "Enter") list.querySelector("a")?.click();
	});

	function renderList() {
		const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
		const fits = (s) => words.every((w) => s.search.includes(w));
		const all = [...state.services.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
		const shown = all.filter(fits);
		arrange(list, shown.map(link));
		for (const name of links.keys()) if (!state.services.has(name)) links.delete(name);
		setText(found, words.length ? `${shown.length} of ${all.length}` : count(all.length, "service"));
		element.classList.toggle("none", all.length === 0);
	}

	function link(s) {
		let l = links.get(s.name);
		if (!l) {
			const a = h("a", { href: href(s.name) }, h("span", { class: "name" }, s.name), h("span", { class: "meta" }));
			l = h("li", {}, a);
			links.set(s.name, l);
		}
		const nodes = s.versions.reduce((n, v) => n + (v.nodes?.length ?? 0), 0);
		setText(l.querySelector(".meta"), [versionsOf(s), count(nodes, "node")].filter(Boolean).join(" · "));
		const a = l.firstChild;
		if (s.name === wanted) a.setAttribute("aria-current", "page");
		else a.removeAttribute("aria-current");
		return l;
	}

	function renderDetail() {
		const s = state.services.get(wanted);
		element.classList.toggle("one", Boolean(wanted));
		if (!wanted) {
			drop();
			overview();
			return arrange(detail, [nothing]);
		}
		if (!s && current?.name !== wanted) {
			drop();
			nothing.replaceChildren(h("h1", { tabindex: -1 }, wanted),
				h("p", {}, state.ready ? "No node of this service is registered now. It will show here when there is one." : "Reading the registry…"), back());
			return arrange(detail, [nothing]);
		}
		if (current?.name !== wanted) {
			drop();
			current = one(wanted, state);
		}
		current.update(s);
		arrange(detail, [current.element]);
		if (toOpen && current.open(toOpen)) toOpen = "";
	}

	function drop() {
		current?.leave();
		current = null;
	}

	function overview() {
		if (state.services.size) {
			nothing.replaceChildren(h("h1", { tabindex: -1 }, count(state.services.size, "service")), h("p", {}, "Choose one to see its nodes, and to call it."));
		} else if (!state.ready) {
			nothing.replaceChildren(h("h1", { tabindex: -1 }, "Services"), h("p", {}, "Reading the registry…"));
		} else {
			const registry = state.about?.settings?.find((x) => x.key === "registry")?.value;
			nothing.replaceChildren(h("h1", { tabindex: -1 }, "No service is registered"),
				h("p", {}, "Start one, and it will show here by itself:"),
				h("pre", {}, "go run ./examples/greeter"),
				h("p", {}, registry ? ["It must use the same registry as this gateway: ", h("code", {}, registry), "."] : "It must use the same registry as this gateway."));
		}
	}

	return {
		element,
		show(name, endpoint) {
			wanted = name;
			toOpen = endpoint;
			renderList();
			renderDetail();
			list.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest" });
		},
		update() {
			renderList();
			renderDetail();
		},
		leave: () => drop(),
		title: () => wanted || "Services",
	};
}

const href = (name, endpoint) => `#/s/${encodeURIComponent(name)}${endpoint ? "/" + encodeURIComponent(endpoint) : ""}`;

const back = () => h("a", { href: "#/", class: "back" }, "All services");

const versionsOf = (s) => s.versions.map((v) => v.version).filter(Boolean).join(", ");

/** one is one service. What people entered stays while it changes. */
function one(name, state) {
	const versions = h("span", { class: "meta" });
	const gone = h("p", { class: "notice", role: "status", hidden: true }, "Its last node has left the registry. Calls will fail until one comes back.");
	const metadata = h("div", {});
	const health = h("span", { class: "meta" });
	const table = h("table", {}, h("caption", { class: "hidden" }, `Nodes of ${name}`));
	const body = h("tbody");
	const withVersion = h("th", { scope: "col" }, "Version");
	table.append(h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Node"), h("th", { scope: "col" }, "Address"), withVersion,
		h("th", { scope: "col", class: "reach" }, "Seen from here"), h("th", { scope: "col" }, "Metadata"))), body);
	const endpoints = h("div", { class: "endpoints" });
	const noEndpoints = h("p", { class: "hint" }, "It registered no endpoints: it may only listen to topics.");
	const element = h("article", {}, back(),
		h("div", { class: "headline" }, h("h1", { tabindex: -1 }, name), versions), gone, metadata,
		h("div", { class: "bar" }, h("h2", {}, "Nodes"), health),
		h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Nodes of ${name}` }, table),
		h("h2", {}, "Endpoints"), noEndpoints, endpoints);
	const rows = new Map(); // by node
	const panels = new Map(); // by endpoint
	let probes = {};
	let lost = false; // so was the connection, when it was last looked at
	let timer = 0;
	let left = false;

	function update(s) {
		gone.hidden = Boolean(s);
		if (!s) {
			rows.clear();
			arrange(body, []);
			setText(health, "none");
			return;
		}
		setText(versions, versionsOf(s));
		const nodes = s.versions.flatMap((v) => (v.nodes ?? []).map((n) => ({ ...n, version: v.version })));
		const several = s.versions.length > 1;
		withVersion.hidden = !several;
		arrange(body, nodes.map((n) => row(n, several)));
		for (const key of rows.keys()) if (!nodes.some((n) => keyOf(n) === key)) rows.delete(key);
		arrange(metadata, pairsOf(s));
		arrange(endpoints, merged(s).map((e) => panel(e, s)));
		noEndpoints.hidden = endpoints.childElementCount > 0;
		showHealth(nodes);
		const back = lost && !state.lost;
		lost = state.lost;
		if (!timer || back) probe();
	}

	const keyOf = (n) => `${n.id} ${n.version}`;

	function row(n, several) {
		const key = keyOf(n);
		const text = JSON.stringify([n, several]);
		let r = rows.get(key);
		if (!r || r.text !== text) {
			const reach = h("td", { class: "reach" });
			r = {
				text, reach, id: n.id,
				element: h("tr", {}, h("th", { scope: "row" }, h("code", {}, n.id)), h("td", {}, h("code", {}, n.address)),
					several ? h("td", { "data-label": "Version" }, n.version ?? "") : null, reach, h("td", {}, tags(n.metadata))),
			};
			rows.set(key, r);
		}
		return r.element;
	}

	function showHealth(nodes) {
		if (state.lost) probes = {}; // nothing is known until there are new ones
		let bad = 0;
		let known = 0;
		for (const r of rows.values()) {
			const p = probes[r.id];
			if (p) known++;
			if (p && !p.reachable) bad++;
			const text = !state.about?.health ? "not probed" : state.lost ? "not known any more" : !p ? "…" : p.reachable ? `reachable in ${duration(p.ms)}` : "not reachable";
			if (r.shown !== text + (p?.error ?? "")) {
				r.shown = text + (p?.error ?? "");
				r.reach.replaceChildren(h("span", { class: p ? (p.reachable ? "good" : "bad") : "hint" }, h("span", { class: "dot" }), text),
					...(p?.error ? [h("span", { class: "why" }, p.error)] : []));
			}
		}
		const total = nodes?.length ?? rows.size;
		setText(health, state.lost ? `${total} registered when the connection was lost` : `${total} registered${known ? `, ${known - bad} reachable` : ""}`);
	}

	async function probe() {
		if (!state.about?.health) return;
		clearTimeout(timer);
		timer = setTimeout(probe, probing);
		if (document.hidden) return;
		try {
			const response = await fetch(`api/health?service=${encodeURIComponent(name)}`, { cache: "no-store" });
			probes = response.ok ? (await response.json()).nodes : {};
		} catch {
			probes = {}; // the connection's state is shown at the top
		}
		if (!left) showHealth();
	}

	function panel(e, s) {
		const text = JSON.stringify([e, s.paths?.[e.name]]);
		let p = panels.get(e.name);
		if (!p || p.text !== text) {
			const open = p?.element.open;
			p?.leave();
			p = endpointPanel(name, e, s.paths?.[e.name], state);
			p.text = text;
			p.element.open = Boolean(open);
			panels.set(e.name, p);
		}
		return p.element;
	}

	return {
		name, element, update,
		open(endpoint) {
			const p = panels.get(endpoint);
			if (!p) return false;
			p.element.open = true;
			p.element.scrollIntoView({ block: "nearest" });
			return true;
		},
		leave() {
			left = true;
			clearTimeout(timer);
			for (const p of panels.values()) p.leave();
		},
	};
}

/** merged are the endpoints of all versions, as the newest that has each describes it. */
function merged(s) {
	const byName = new Map();
	for (const v of s.versions) for (const e of v.endpoints ?? []) byName.set(e.name, e);
	return [...byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** pairsOf shows the metadata of the service, which is rarely there. */
function pairsOf(s) {
	const all = Object.assign({}, ...s.versions.map((v) => v.metadata ?? {}));
	return Object.keys(all).length ? [h("p", {}, tags(all))] : [];
}

const tags = (metadata) => Object.entries(metadata ?? {}).sort().map(([k, v]) => h("span", { class: "tag" }, h("span", {}, k), v));

const streamNames = { server: "streams answers", client: "streams requests", both: "streams both ways" };

function endpointPanel(service, e, path, state) {
	const stream = e.metadata?.stream ?? "";
	const summary = h("summary", {},
		h("span", { class: "name" }, e.name),
		stream ? h("span", { class: "badge" }, streamNames[stream] ?? stream) : null,
		e.metadata?.idempotent === "true" ? h("span", { class: "badge" }, "idempotent") : null,
		h("span", { class: "signature" }, `${e.request?.type || "any"} → ${e.response?.type || "any"}`));
	const body = h("div", { class: "body" });
	const element = h("details", { class: "endpoint" }, summary, body);
	let made = null;
	const make = () => {
		if (!element.open || made) return;
		made = state.about?.calls ? caller(service, e) : { element: h("p", { class: "hint" }, "This page cannot call."), stop() {} };
		body.append(...[
			path ? h("p", { class: "path" }, h("code", {}, stream === "client" || stream === "both" ? `WebSocket ${path}` : `POST ${path}`), h("span", { class: "hint" }, "on the public address")) : null,
			made.element,
			h("details", { class: "fieldlist" }, h("summary", {}, "Fields"),
				h("div", { class: "columns" }, h("div", {}, h("h4", {}, "Request"), fields(e.request)), h("div", {}, h("h4", {}, "Answer"), fields(e.response)))),
		].filter(Boolean));
	};
	element.addEventListener("toggle", make);
	return { element, leave: () => made?.stop() };
}

/** fields lists what a message has, messages within it indented. */
function fields(v) {
	if (!v) return h("p", { class: "hint" }, "not described");
	if (!v.values?.length) return h("p", {}, h("code", {}, v.type || "any"), h("span", { class: "hint" }, " without described fields"));
	return h("ul", { class: "tree" }, v.values.map((f) => h("li", {}, h("code", {}, f.name), " ", h("span", { class: "type" }, f.type), f.values?.length ? fields(f) : null)));
}
