// Server-sent events read by fetch: unlike with EventSource, a refusal can be read, a request can have a body, and a
// silent connection is noticed.

/** Refused is an answer that is no stream, or an error in one: a Problem (RFC 9457). */
export class Refused extends Error {
	constructor(problem) {
		super(problem.detail || problem.title || "refused");
		this.problem = problem;
	}
}

/** problemOf reads why a response is none that was wanted. */
export async function problemOf(response) {
	const text = (await response.text()).slice(0, 10000);
	try {
		const problem = JSON.parse(text);
		if (problem && typeof problem === "object" && problem.title) return problem;
	} catch {
		// it is text then
	}
	return { title: response.statusText || "Error", status: response.status, code: "Unknown", detail: text };
}

const largest = 16 << 20; // characters of one event

/** events yields {event, data} of a response, its body being text/event-stream. */
export async function* events(response, onBytes = () => {}) {
	const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = "";
	let event = "";
	let data = [];
	try {
		for (;;) {
			const { done, value } = await reader.read();
			if (done) return;
			onBytes(value.length);
			const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
			rest = lines.pop();
			if (rest.length > largest) throw new Error("an event of the stream is too large");
			for (const line of lines) {
				if (line === "") {
					if (data.length) yield { event: event || "message", data: data.join("\n") };
					event = "";
					data = [];
				} else if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
				else if (line.startsWith("event:")) event = line.slice(6).trim();
			}
		}
	} finally {
		reader.cancel().catch(() => {});
	}
}

const silence = 30_000; // after which a connection is taken for lost: three heartbeats

/**
 * follow keeps a stream of the page itself open until the function that it returns is called. handler has: open(),
 * event(name, value), lost(ms until the next try, error), refused(problem), after which it does not try again.
 */
export function follow(url, handler) {
	const all = new AbortController();
	let failures = 0;

	async function once() {
		const one = new AbortController();
		const stop = () => one.abort();
		all.signal.addEventListener("abort", stop);
		let timer = setTimeout(stop, silence);
		try {
			const response = await fetch(url, { signal: one.signal, headers: { Accept: "text/event-stream" }, cache: "no-store" });
			if (!response.ok) throw new Refused(await problemOf(response));
			const alive = () => {
				clearTimeout(timer);
				timer = setTimeout(stop, silence);
			};
			handler.open();
			for await (const e of events(response, alive)) {
				failures = 0;
				handler.event(e.event, JSON.parse(e.data));
			}
		} finally {
			clearTimeout(timer);
			all.signal.removeEventListener("abort", stop);
		}
	}

	async function run() {
		while (!all.signal.aborted) {
			let error = null;
			try {
				await once();
			} catch (e) {
				error = e;
			}
			if (all.signal.aborted) return;
			if (error instanceof Refused && error.problem.status < 500) return handler.refused(error.problem);
			const pause = Math.min(10_000, 250 * 2 ** failures++) * (0.75 + Math.random() / 2);
			handler.lost(pause, error);
			await new Promise((resolve) => {
				const t = setTimeout(resolve, pause);
				all.signal.addEventListener("abort", () => { clearTimeout(t); resolve(); }, { once: true });
			});
		}
	}
	run();
	return () => all.abort();
}
