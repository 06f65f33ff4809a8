// One call: its form, and what comes back.
import { count, duration, h, setText, size } from "./dom.js";
import { coloured } from "./json.js";
import { request } from "./form.js";
import { events, problemOf, Refused } from "./stream.js";

const mostItems = 200; // of a stream, that are shown
const longest = 2_000_000; // characters of an answer, that are shown

/** caller makes the form for an endpoint: {element}. */
export function caller(service, endpoint) {
	const streams = endpoint.metadata?.stream ?? "";
	const form = request(endpoint.request);
	const status = h("p", { class: "status", role: "status" });
	const answer = h("div", { class: "answer" }, h("p", { class: "hint" }, streams ? "The answers will show here, as they come." : "The answer will show here."));
	const begin = h("button", { type: "submit", class: "primary" }, streams === "" ? "Call" : "Start");
	const stop = h("button", { type: "button", disabled: true }, "Stop");
	const more = h("button", { type: "button", hidden: true }, "Send");
	const end = h("button", { type: "button", hidden: true }, "End sending");
	const element = h("form", { class: "call", novalidate: true },
		h("section", { "aria-label": `Request of ${endpoint.name}` },
			h("div", { class: "bar" }, h("h4", {}, "Request"), form.head),
			form.element,
			h("div", { class: "actions" }, begin, more, end, stop)),
		h("section", { "aria-label": `Answer of ${endpoint.name}` },
			h("div", { class: "bar" }, h("h4", {}, streams === "server" || streams === "both" ? "Answers" : "Answer"), status),
			answer));

	let running = null;
	const busy = (is) => {
		// A disabled button loses the focus: hand it to the one that takes its place.
		const focused = document.activeElement;
		begin.disabled = is;
		stop.disabled = !is;
		if (is && focused === begin) stop.focus();
		if (!is && (focused === stop || focused === more || focused === end)) begin.focus();
	};
	const run = async (work) => {
		running = new AbortController();
		busy(true);
		status.className = "status";
		setText(status, "Calling…");
		const meter = { start: performance.now(), now: () => duration(performance.now() - meter.start) };
		try {
			await work(running.signal, meter);
		} catch (e) {
			if (running.signal.aborted) say(`Stopped after ${meter.now()}`, "");
			else if (e instanceof Refused) fail(e.problem, meter.now());
			else fail({ title: "No answer", detail: `The gateway could not be reached: ${e.message}` }, meter.now());
		} finally {
			running = null;
			busy(false);
		}
	};
	const say = (text, kind) => {
		status.className = `status ${kind}`;
		setText(status, text);
	};
	const fail = (problem, after) => {
		say(`${[problem.status, problem.title].filter(Boolean).join(" ")} · ${after}`, "bad");
		const shown = problemView(problem);
		const items = answer.querySelector(".items");
		if (items?.childElementCount) answer.append(shown);
		else answer.replaceChildren(shown);
	};
	const url = `call?service=${encodeURIComponent(service)}&endpoint=${encodeURIComponent(endpoint.name)}`;

	async function call(signal, meter, body) {
		const response = await fetch(url, {
			method: "POST", body, signal, cache: "no-store",
			headers: { "Content-Type": "application/json", Accept: streams === "server" ? "text/event-stream" : "application/json" },
		});
		if (!response.ok) throw new Refused(await problemOf(response));
		if (response.headers.get("Content-Type")?.startsWith("text/event-stream")) return streamed(response, meter);
		const text = await response.text();
		answer.replaceChildren(block(text, "Answer"));
		say(`${response.status} ${response.statusText || "OK"} · ${meter.now()} · ${size(new Blob([text]).size)}`, "good");
	}

	async function streamed(response, meter) {
		const list = items(answer);
		say("Open, nothing came yet", "good");
		for await (const e of events(response)) {
			if (e.event === "error") throw new Refused(JSON.parse(e.data));
			if (e.event === "end") break;
			list.add(e.data);
			say(`${count(list.total(), "answer")} · ${meter.now()}`, "good");
		}
		say(`Complete · ${count(list.total(), "answer")} · ${meter.now()}`, "good");
	}

	/** converse is for streams of requests: a WebSocket, one message for each item. */
	function converse(signal, meter, first) {
		const list = items(answer);
		return new Promise((resolve, reject) => {
			const socket = new WebSocket(new URL(url, location.href.replace(/#.*/, "").replace(/^http/, "ws")));
			let sent = 0;
			const told = () => say(`${count(sent, "request")} sent, ${count(list.total(), "answer")} · ${meter.now()}`, "good");
			const send = (text) => {
				socket.send(text);
				sent++;
				told();
			};
			const ending = (open) => {
				more.hidden = end.hidden = !open;
				begin.hidden = open;
				more.onclick = end.onclick = null;
			};
			signal.addEventListener("abort", () => socket.close());
			socket.onopen = () => {
				ending(true);
				more.focus();
				more.onclick = () => {
					try {
						send(form.text());
					} catch {
						// the form says why
					}
				};
				end.onclick = () => {
					socket.send("");
					more.disabled = end.disabled = true;
					stop.focus();
				};
				send(first);
			};
			socket.onmessage = (m) => {
				list.add(typeof m.data === "string" ? m.data : "(binary)");
				told();
			};
			socket.onclose = (e) => {
				more.disabled = end.disabled = false;
				const had = document.activeElement === more || document.activeElement === end;
				ending(false);
				if (had) begin.focus();
				if (signal.aborted) return reject(new Error("stopped"));
				if (e.code !== 1000) return reject(new Refused(problemOfClose(e, sent)));
				say(`Complete · ${count(sent, "request")}, ${count(list.total(), "answer")} · ${meter.now()}`, "good");
				resolve();
			};
		});
	}

	element.addEventListener("submit", (e) => {
		e.preventDefault();
		if (running) return;
		let body;
		try {
			body = form.text();
		} catch {
			return; // the form says why
		}
		run((signal, meter) => (streams === "client" || streams === "both" ? converse(signal, meter, body) : call(signal, meter, body)));
	});
	element.addEventListener("keydown", (e) => {
		if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) element.requestSubmit();
	});
	stop.addEventListener("click", () => running?.abort());
	return { element, stop: () => running?.abort() };
}

/** problemOfClose is what a closed WebSocket says of itself: 4000 and the status of a Problem, or a code of its own. */
function problemOfClose(e, sent) {
	const why = e.reason || (sent ? "the connection was lost" : "the gateway refused the connection");
	if (e.code >= 4000 && e.code < 5000) return { title: "The stream broke", status: e.code - 4000, detail: why };
	return { title: e.code === 1001 ? "The gateway stops" : "The stream broke", detail: why };
}

/** block is an answer, indented, scrollable by keyboard. */
export function block(text, label, short = false) {
	const cut = text.length > longest;
	const shown = cut ? text.slice(0, longest) : text;
	const pre = h("pre", { tabindex: 0, role: "region", "aria-label": label }, shown === "" ? h("span", { class: "hint" }, "(empty)") : coloured(shown, short));
	return cut ? h("div", {}, pre, h("p", { class: "hint" }, `Only the first ${size(longest)} are shown.`)) : pre;
}

/** items are the answers of a stream, the newest at the end. */
function items(answer) {
	const dropped = h("p", { class: "hint", hidden: true });
	const list = h("ol", { class: "items", tabindex: 0, "aria-label": "Answers" });
	answer.replaceChildren(dropped, list);
	let total = 0;
	return {
		total: () => total,
		add(text) {
			total++;
			const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
			list.append(h("li", {}, h("span", { class: "n" }, String(total)), h("code", {}, coloured(text.length > 20_000 ? text.slice(0, 20_000) : text, true))));
			if (list.childElementCount > mostItems) {
				list.firstElementChild.remove();
				dropped.hidden = false;
				setText(dropped, `The last ${mostItems} are shown.`);
			}
			if (atEnd) list.scrollTop = list.scrollHeight;
		},
	};
}

/** problemView shows a Problem. */
export function problemView(p) {
	return h("div", { class: "problem" },
		h("p", {}, h("strong", {}, [p.status, p.title].filter(Boolean).join(" ")), p.code && p.code !== "Unknown" ? h("code", {}, p.code) : null),
		p.detail ? h("p", { class: "detail" }, p.detail) : null,
		p.request_id ? h("p", { class: "hint" }, "Request ", h("code", {}, p.request_id)) : null);
}
