// JSON as text: indented and coloured token by token, so that what is shown is what came, numbers beyond 2^53 included.
import { h } from "./dom.js";

const tokens = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|[{}[\],:]/g;
const mostTokens = 20_000; // beyond that a browser takes its time
const shortest = 90; // characters that fit on a line

/** isJSON says whether text is JSON. */
export function isJSON(text) {
	try {
		JSON.parse(text);
		return true;
	} catch {
		return false;
	}
}

/** pretty indents JSON; what is none stays as it is. */
export function pretty(text) {
	if (!isJSON(text)) return text;
	let out = "";
	let depth = 0;
	const all = text.match(tokens) || [];
	for (let i = 0; i < all.length; i++) {
		const t = all[i];
		const next = all[i + 1];
		if (t === "{" || t === "[") {
			if (next === "}" || next === "]") {
				out += t + next;
				i++;
				continue;
			}
			out += t + "\n" + "  ".repeat(++depth);
		} else if (t === "}" || t === "]") out += "\n" + "  ".repeat(--depth) + t;
		else if (t === ",") out += ",\n" + "  ".repeat(depth);
		else if (t === ":") out += ": ";
		else out += t;
	}
	return out;
}

/** oneLine writes JSON on a line, or says that it does not fit on one. */
function oneLine(text) {
	if (text.length > 2 * shortest) return null;
	const line = (text.match(tokens) || []).map((t) => (t === "," || t === ":" ? t + " " : t)).join("");
	return line.length <= shortest ? line : null;
}

/** coloured is text as nodes: coloured if it is JSON, which is on one line if that is wanted and it is short. */
export function coloured(text, short = false) {
	if (!isJSON(text)) return [text];
	const shown = (short && oneLine(text)) || pretty(text);
	if ((shown.match(tokens) || []).length > mostTokens) return [shown];
	const nodes = [];
	let at = 0;
	for (const m of shown.matchAll(tokens)) {
		const kind = kindOf(m[0], shown[m.index + m[0].length]);
		if (!kind) continue;
		if (m.index > at) nodes.push(shown.slice(at, m.index));
		nodes.push(h("span", { class: kind }, m[0]));
		at = m.index + m[0].length;
	}
	nodes.push(shown.slice(at));
	return nodes;
}

function kindOf(token, next) {
	if (token[0] === '"') return next === ":" ? "j-key" : "j-string";
	if (/[-\d]/.test(token[0])) return "j-number";
	if (/[tfn]/.test(token[0])) return "j-word";
	return "";
}
