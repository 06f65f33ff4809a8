// The page: it follows the services, and shows the view that the address names.
import { h, setText } from "./dom.js";
import { follow } from "./stream.js";
import { view as eventsView } from "./events.js";
import { view as pluginsView } from "./plugins.js";
import { view as servicesView } from "./services.js";

const state = { services: new Map(), ready: false, about: null, lost: false };
const main = document.getElementById("main");
const link = document.getElementById("link");
const views = { services: servicesView(state), events: eventsView(state), plugins: pluginsView(state), none: noView() };
let shown = null;

/** route reads the address: #/, #/s/NAME, #/s/NAME/ENDPOINT, #/events, #/events/TOPIC, #/plugins. */
function route() {
	if (location.hash === "#main") return ["services", []]; // the skip link's, in a new tab
	const [at, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decode);
	if (at === "events" || at === "plugins") return [at, rest];
	if (at === "" || at === "s") return ["services", at ? rest : []];
	return ["none", [location.hash]];
}

function noView() {
	const at = h("code", {});
	const element = h("div", { class: "empty" }, h("h1", { tabindex: -1 }, "There is no such view"),
		h("p", {}, "This page has nothing at ", at, "."), h("p", {}, h("a", { href: "#/" }, "All services")));
	return { element, show: (hash) => setText(at, hash), update() {}, leave() {}, title: () => "No such view" };
}

function decode(s) {
	try {
		return decodeURIComponent(s);
	} catch {
		return s;
	}
}

function show(focus) {
	const [name, rest] = route();
	const view = views[name];
	if (shown && shown !== view) shown.leave();
	for (const a of document.querySelectorAll("nav a")) {
		if (a.id === `nav-${name}`) a.setAttribute("aria-current", "page");
		else a.removeAttribute("aria-current");
	}
	if (shown !== view) main.replaceChildren(view.element);
	view.show(rest[0] ?? "", rest[1] ?? ""); // when it is there: it scrolls to what is wanted
	shown = view;
	document.title = `${view.title()} · Micro gateway`;
	if (!focus) return;
	scrollTo(0, 0);
	(main.querySelector(".detail h1, .single h1, .empty h1") ?? main).focus({ preventScroll: true });
}

function linkIs(kind, text) {
	link.className = `link ${kind}`;
	setText(link.querySelector(".text"), text);
}

/** lose says that what is shown may not be so any more. */
function lose(text) {
	linkIs("bad", text);
	state.lost = true;
	shown?.update();
}

function take(change) {
	if (change.all) state.services.clear();
	for (const name of change.gone ?? []) state.services.delete(name);
	for (const s of change.services ?? []) {
		s.search = JSON.stringify([s.name, s.versions.map((v) => [v.version, v.endpoints?.map((e) => e.name)])]).toLowerCase();
		state.services.set(s.name, s);
	}
	state.ready = change.ready;
	state.lost = false;
	shown?.update();
}

async function about() {
	const response = await fetch("api/about", { cache: "no-store" });
	if (!response.ok) throw new Error(`status ${response.status}`);
	state.about = await response.json();
}

// A browser has six connections for all tabs of this page together: one that nobody looks at gives its own back.
let stop = null;
function connect() {
	stop?.();
	stop = null;
	if (document.hidden) return;
	stop = follow("api/services", {
		open() {},
		async event(_, change) {
			if (change.all) {
				linkIs("good", "Live");
				if (!state.about) {
					await about().catch(() => {});
					show(false);
				}
			}
			take(change);
		},
		lost: () => lose("Connection lost, trying again…"),
		refused: (p) => lose(`Refused: ${p.detail ?? p.title}`),
	});
}

addEventListener("hashchange", () => {
	if (location.hash === "#main") return; // the skip link
	show(true);
});
document.addEventListener("visibilitychange", connect);
document.querySelector(".skip").addEventListener("click", (e) => {
	e.preventDefault();
	main.focus();
});
show(false);
connect();
