// A form for a message, made of what the service registered of its fields. A control has text(), its value as JSON or ""
// if nothing was entered, and set(value). Numbers stay text, so that large ones arrive as they were entered.
import { h, id } from "./dom.js";
import { pretty } from "./json.js";

const integers = /^(u?int(8|16|32|64)?|uintptr|[su]int(32|64)|s?fixed(32|64))$/;
const numbers = /^(float|double|float32|float64)$/;

/** Invalid is an entry that does not fit its field. */
export class Invalid extends Error {
	constructor(message, input) {
		super(message);
		this.input = input;
	}
}

/** control makes the control for a value: a field, or a whole request. */
export function control(value, name = value?.name ?? "") {
	const type = value?.type || (value?.values?.length ? "object" : "any");
	const fields = value?.values;
	if (type.startsWith("[]")) return list({ type: type.slice(2), values: fields }, name, type);
	if (type.startsWith("map[string]")) return pairs({ type: type.slice(11), values: fields }, name, type);
	if (fields?.length) return message(fields, name, type);
	if (type === "bool") return checkbox(name);
	if (type === "string") return input(name, type, { text: (s) => JSON.stringify(s) });
	if (type === "bytes") return input(name, "base64", { text: bytes, hint: "base64" });
	if (integers.test(type)) return input(name, type, { text: integer, mode: "numeric" });
	if (numbers.test(type)) return input(name, type, { text: number, mode: "decimal" });
	return anything(name, type);
}

function labelled(name, type, forId) {
	return h("label", { for: forId }, h("span", { class: "name" }, name || "value"), h("span", { class: "type" }, type));
}

function input(name, type, { text, mode, hint }) {
	const box = h("input", { id: id(), type: "text", inputmode: mode, placeholder: hint, autocomplete: "off", spellcheck: "false", autocapitalize: "off" });
	box.addEventListener("input", () => box.removeAttribute("aria-invalid"));
	return {
		element: h("div", { class: "field" }, labelled(name, type, box.id), box),
		text: () => (box.value === "" ? "" : text(box.value, name, box)),
		set: (v) => { box.value = v == null ? "" : typeof v === "string" ? v : JSON.stringify(v); },
		focus: () => box.focus(),
	};
}

function refuse(what, box) {
	box.setAttribute("aria-invalid", "true");
	throw new Invalid(what, box);
}

function integer(s, name, box) {
	s = s.trim();
	if (!/^-?(0|[1-9]\d*)$/.test(s)) refuse(`${name}: a whole number is wanted`, box);
	return s;
}

function number(s, name, box) {
	s = s.trim();
	if (!/^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(s)) refuse(`${name}: a number is wanted, such as -1.5e3`, box);
	return s;
}

function bytes(s, name, box) {
	s = s.trim();
	if (!/^[A-Za-z0-9+/]*={0,2}$/.test(s) || s.length % 4) refuse(`${name}: base64 is wanted`, box);
	return JSON.stringify(s);
}

function checkbox(name) {
	const box = h("input", { id: id(), type: "checkbox" });
	return {
		element: h("div", { class: "field check" }, box, labelled(name, "bool", box.id)),
		text: () => (box.checked ? "true" : ""),
		set: (v) => { box.checked = v === true; },
		focus: () => box.focus(),
	};
}

/** anything is for what was not described: JSON, or text. */
function anything(name, type) {
	const box = h("textarea", { id: id(), rows: 2, placeholder: "JSON, or text", spellcheck: "false", autocapitalize: "off" });
	return {
		element: h("div", { class: "field" }, labelled(name, type, box.id), box),
		text() {
			const s = box.value.trim();
			if (s === "") return "";
			try {
				JSON.parse(s);
				return s;
			} catch {
				return JSON.stringify(box.value);
			}
		},
		set: (v) => { box.value = v == null ? "" : JSON.stringify(v); },
		focus: () => box.focus(),
	};
}

/** message is a group of fields, which are made when it is opened first: messages within messages can be many. */
function message(fields, name, type) {
	let controls = null;
	const body = h("div", { class: "fields" });
	const make = () => {
		if (controls) return controls;
		controls = fields.map((f) => [f.name ?? "", control(f)]);
		body.append(...controls.map(([, c]) => c.element));
		return controls;
	};
	const element = h("details", { class: "group" }, h("summary", {}, h("span", { class: "name" }, name || "value"), h("span", { class: "type" }, type)), body);
	element.addEventListener("toggle", () => element.open && make());
	return {
		element,
		text: () => (controls ? join(controls) : ""),
		set(v) {
			if (v == null && !controls) return;
			make();
			if (v != null) element.open = true;
			for (const [key, c] of controls) c.set(v?.[key]);
		},
		focus: () => element.querySelector("summary").focus(),
	};
}

function join(controls) {
	const parts = [];
	for (const [name, c] of controls) {
		const text = c.text();
		if (text !== "") parts.push(`${JSON.stringify(name)}:${text}`);
	}
	return parts.length ? `{${parts.join(",")}}` : "";
}

/** rows is what lists and maps have in common. */
function rows(name, type, makeRow) {
	const all = [];
	const box = h("div", { class: "rows" });
	const add = (focus) => {
		const row = makeRow(all.length);
		const remove = h("button", { type: "button", class: "small", "aria-label": `Remove ${name || "value"} ${all.length + 1}` }, "Remove");
		const element = h("div", { class: "row" }, row.element, remove);
		const entry = { row, element };
		remove.addEventListener("click", () => {
			const i = all.indexOf(entry);
			all.splice(i, 1);
			element.remove();
			(all[i] ?? all[i - 1])?.row.focus() ?? button.focus();
		});
		all.push(entry);
		box.append(element);
		if (row.element.tagName === "DETAILS") row.element.open = true;
		if (focus) row.focus();
		return row;
	};
	const button = h("button", { type: "button", class: "small", onclick: () => add(true) }, `Add to ${name || "the list"}`);
	const legend = h("legend", {}, h("span", { class: "name" }, name || "value"), h("span", { class: "type" }, type));
	return {
		element: h("fieldset", { class: "group" }, legend, box, button),
		all: () => all.map((e) => e.row),
		add,
		clear: () => { all.length = 0; box.replaceChildren(); },
		focus: () => button.focus(),
	};
}

function list(element, name, type) {
	const r = rows(name, type, (i) => control(element, `${name || "item"} ${i + 1}`));
	return {
		element: r.element,
		text() {
			const all = r.all().map((c) => c.text() || zero(element.type));
			return all.length ? `[${all.join(",")}]` : "";
		},
		set(v) {
			r.clear();
			if (Array.isArray(v)) for (const x of v) r.add().set(x);
		},
		focus: r.focus,
	};
}

/** zero is an item of a list in which nothing was entered. */
function zero(type) {
	if (type === "string" || type === "bytes") return '""';
	if (type === "bool") return "false";
	if (integers.test(type) || numbers.test(type)) return "0";
	return "null";
}

function pairs(element, name, type) {
	const r = rows(name, type, (i) => {
		const key = input("key", "string", { text: (s) => JSON.stringify(s) });
		const value = control(element, `value ${i + 1}`);
		return {
			key, value,
			element: h("div", { class: "pair" }, key.element, value.element),
			focus: key.focus,
		};
	});
	return {
		element: r.element,
		text() {
			const all = r.all().map((p) => `${p.key.text() || '""'}:${p.value.text() || zero(element.type)}`);
			return all.length ? `{${all.join(",")}}` : "";
		},
		set(v) {
			r.clear();
			if (v && typeof v === "object") for (const [key, x] of Object.entries(v)) {
				const p = r.add();
				p.key.set(key);
				p.value.set(x);
			}
		},
		focus: r.focus,
	};
}

/**
 * request makes the form of a whole request, with a switch to raw JSON. text() is the body; it throws Invalid.
 */
export function request(value) {
	const fields = value?.values?.length && !/^(\[\]|map\[)/.test(value.type) ? value.values.map((f) => [f.name ?? "", control(f)]) : null;
	const whole = fields ? null : value && value.type !== "any" && /^(\[\]|map\[|string$|bool$|bytes$|u?int|float|double)/.test(value.type) ? control(value, "request") : null;
	const described = Boolean(fields || whole);
	const box = h("textarea", { id: id(), rows: 6, class: "code", spellcheck: "false", autocapitalize: "off", "aria-label": "Request as JSON" });
	box.addEventListener("input", () => box.removeAttribute("aria-invalid"));
	const form = h("div", { class: "fields" }, fields ? fields.map(([, c]) => c.element) : whole ? whole.element : []);
	const raw = h("div", { class: "fields", hidden: true }, h("div", { class: "field" }, box));
	const toggle = h("input", { type: "checkbox", id: id(), role: "switch" });
	const note = h("p", { class: "error", role: "alert" });

	const fromForm = () => (fields ? join(fields) || "{}" : whole ? whole.text() || "null" : "{}");
	const fromBox = () => {
		const s = box.value.trim() || "{}";
		try {
			JSON.parse(s);
		} catch (e) {
			refuse(`The request is not JSON: ${e.message}`, box);
		}
		return s;
	};
	const show = (isRaw) => {
		toggle.checked = isRaw;
		raw.hidden = !isRaw;
		form.hidden = isRaw;
	};
	toggle.addEventListener("change", () => {
		note.textContent = "";
		try {
			if (toggle.checked) box.value = pretty(fromForm());
			else fill(parse(fromBox()));
			show(toggle.checked);
		} catch (e) {
			note.textContent = e.message;
			show(!toggle.checked);
		}
	});
	const fill = (v) => {
		if (fields) for (const [key, c] of fields) c.set(v?.[key]);
		else whole?.set(v);
	};
	if (!described) {
		box.value = "{}";
		show(true);
	}
	return {
		head: h("span", { class: "switch", hidden: !described }, toggle, h("label", { for: toggle.id }, "Raw JSON")),
		element: h("div", {}, form, raw, note),
		text() {
			note.textContent = "";
			try {
				return toggle.checked ? fromBox() : fromForm();
			} catch (e) {
				note.textContent = e.message;
				e.input?.focus();
				throw e;
			}
		},
	};
}

/** parse keeps numbers that JavaScript would round as the text that they are. */
function parse(text) {
	return JSON.parse(text, (_, v, context) => (typeof v === "number" && context?.source && String(v) !== context.source ? context.source : v));
}
