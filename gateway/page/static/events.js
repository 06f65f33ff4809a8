// The events of a topic, as they come.
import { count, h, id, setText, size } from "./dom.js";
import { block, problemView } from "./call.js";
import { follow } from "./stream.js";

const mostShown = 200;

/** view is {element, show(topic), leave()}. It goes on listening while other views are shown. */
export function view(state) {
	const topic = h("input", { id: id(), type: "text", autocomplete: "off", spellcheck: "false", autocapitalize: "off", placeholder: "greetings", required: true });
	const button = h("button", { type: "submit", class: "primary" }, "Listen");
	const clear = h("button", { type: "button", disabled: true }, "Clear");
	const status = h("p", { class: "status", role: "status" }, "Not listening");
	const form = h("form", { class: "topic", novalidate: true },
		h("div", { class: "field" }, h("label", { for: topic.id }, h("span", { class: "name" }, "Topic")), topic), h("div", { class: "actions" }, button, clear));
	const list = h("ol", { class: "events", "aria-label": "Events, the newest first" });
	const empty = h("p", { class: "empty" });
	const problem = h("div", {});
	const element = h("article", { class: "single" }, h("div", { class: "headline" }, h("h1", { tabindex: -1 }, "Events")),
		h("p", { class: "lead" }, "What is published to a topic from now on, received as one subscriber more: nothing is taken away from the others."),
		form, status, problem, empty, list);
	let stop = null;
	let listening = "";
	let total = 0;
	let dropped = 0;

	const say = (text, kind = "") => {
		status.className = `status ${kind}`;
		setText(status, text);
	};
	const idle = (text) => {
		stop?.();
		stop = null;
		setText(button, "Listen");
		button.classList.add("primary");
		say(text);
		hint();
	};
	const hint = () => {
		empty.hidden = total > 0 || Boolean(problem.firstChild);
		if (!state.about?.events) return empty.replaceChildren("This gateway was started without a broker.");
		if (stop) return empty.replaceChildren("Nothing came yet. To publish something:", h("pre", {}, `micro publish ${/^[\w.-]+$/.test(listening) ? listening : "TOPIC"} '{"name":"Ada"}'`));
		empty.replaceChildren("Name a topic and listen to it.");
	};

	function listen() {
		stop?.();
		listening = topic.value.trim();
		total = dropped = 0;
		list.replaceChildren();
		problem.replaceChildren();
		clear.disabled = true;
		setText(button, "Stop");
		button.classList.remove("primary");
		say("Subscribing…");
		stop = follow(`api/events?topic=${encodeURIComponent(listening)}`, {
			open() {},
			event(kind, value) {
				if (kind === "bound") {
					problem.replaceChildren();
					say(`Listening to ${listening}`, "good");
				} else add(value);
				hint();
			},
			lost(pause, error) {
				say(`Connection lost: trying again in ${Math.ceil(pause / 1000)} s. Events of that time are missing.`, "bad");
				problem.replaceChildren(...(error?.problem ? [problemView(error.problem)] : []));
				hint();
			},
			refused(p) {
				problem.replaceChildren(problemView(p));
				idle("Not listening");
			},
		});
		hint();
	}

	function add(e) {
		total++;
		dropped += e.dropped ?? 0;
		list.prepend(entry(e));
		while (list.childElementCount > mostShown) list.lastElementChild.remove();
		clear.disabled = false;
		const extra = [total > mostShown ? `the last ${mostShown} are shown` : "", dropped ? `${dropped} came too fast to be shown` : ""].filter(Boolean);
		say([`Listening to ${listening}: ${count(total, "event")}`, ...extra].join(", "), "good");
	}

	form.addEventListener("submit", (e) => {
		e.preventDefault();
		if (stop) return idle(`Stopped after ${count(total, "event")}`);
		if (!topic.value.trim()) {
			topic.setAttribute("aria-invalid", "true");
			return topic.focus();
		}
		topic.removeAttribute("aria-invalid");
		const to = `#/events/${encodeURIComponent(topic.value.trim())}`;
		if (location.hash !== to) history.replaceState(null, "", to);
		listen();
	});
	topic.addEventListener("input", () => {
		topic.removeAttribute("aria-invalid");
		if (stop && topic.value.trim() !== listening) idle(`Stopped after ${count(total, "event")}`);
	});
	clear.addEventListener("click", () => {
		list.replaceChildren();
		total = dropped = 0;
		clear.disabled = true;
		button.focus();
		if (stop) say(`Listening to ${listening}`, "good");
		hint();
	});

	return {
		element,
		show(name) {
			if (name && name !== listening && !stop) topic.value = name;
			button.disabled = topic.disabled = !state.about?.events;
			hint();
		},
		update: hint,
		leave() {},
		title: () => "Events",
	};
}

function entry(e) {
	const at = new Date(e.time);
	const time = at.toLocaleTimeString("en-GB") + "." + String(at.getMilliseconds()).padStart(3, "0");
	return h("li", {},
		h("p", { class: "facts" }, h("time", { datetime: e.time }, time), fact("id", e.id), e.key ? fact("key", e.key) : null,
			Object.entries(e.header ?? {}).sort().map(([k, v]) => fact(k, v)), h("span", { class: "meta" }, size(e.size))),
		block(e.body, "Body", true),
		e.binary || e.cut ? h("p", { class: "hint" }, [e.binary ? "Not text: shown as base64." : "", e.cut ? "Only its beginning is shown." : ""].join(" ")) : null);
}

const fact = (name, value) => h("span", { class: "tag" }, h("span", {}, name), value);
