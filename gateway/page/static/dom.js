// What the views are built with. Text only ever becomes text: nothing here, or anywhere on this page, parses HTML.

/** h makes an element: h("p", {class: "note", onclick: f}, "text", child, …). Attributes that are null or false are left out. */
export function h(tag, attributes = {}, ...children) {
	const e = document.createElement(tag);
	for (const [name, value] of Object.entries(attributes)) {
		if (name.startsWith("on")) e.addEventListener(name.slice(2), value);
		else if (value === true) e.setAttribute(name, "");
		else if (value !== false && value != null) e.setAttribute(name, value);
	}
	e.append(...children.flat(Infinity).filter((c) => c != null && c !== false));
	return e;
}

/** arrange makes children the children of parent and moves as few as possible, so that focus stays where it is. */
export function arrange(parent, children) {
	const wanted = new Set(children);
	for (const c of [...parent.childNodes]) if (!wanted.has(c)) c.remove();
	let at = parent.firstChild;
	for (const c of children) {
		if (c === at) at = at.nextSibling;
		else parent.insertBefore(c, at);
	}
}

/** setText changes the text of an element only if it differs, so that live regions do not repeat themselves. */
export function setText(e, text) {
	if (e.textContent !== text) e.textContent = text;
}

let ids = 0;

/** id is a new id for an element. */
export const id = () => `id${++ids}`;

/** count writes "1 node", "2 nodes". */
export const count = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

/** duration writes milliseconds. */
export function duration(ms) {
	if (ms < 10) return `${ms.toFixed(1)} ms`;
	if (ms < 1000) return `${Math.round(ms)} ms`;
	if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
	return `${Math.floor(ms / 60000)} min ${Math.round((ms % 60000) / 1000)} s`;
}

/** size writes a number of bytes. */
export function size(n) {
	if (n < 1000) return `${n} B`;
	if (n < 1e6) return `${(n / 1000).toFixed(1)} kB`;
	return `${(n / 1e6).toFixed(1)} MB`;
}
