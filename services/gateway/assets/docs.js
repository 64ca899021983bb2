// Shows /openapi.json. Everything is put in as text, never as markup: names and descriptions cannot carry script.

const METHODS = ["get", "post", "put", "patch", "delete"];
const SHOWN_OF_ANSWER = 200_000;

let description;

/** An element with attributes and children; strings become text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function resolved(schema) {
  let found = schema ?? {};
  while (found.$ref) {
    found = found.$ref.slice(2).split("/").reduce((place, name) => place?.[name.replaceAll("~1", "/")], description) ?? {};
  }
  return found;
}

const nameOf = (schema) => schema?.$ref?.split("/").at(-1);

function typeOf(schema) {
  if (nameOf(schema)) return nameOf(schema);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return choices.map(typeOf).join(" | ");
  if (schema.type === "array") return `${typeOf(schema.items ?? {})}[]`;
  return [schema.type ?? "any JSON"].flat().join(" | ") + (schema.format ? ` (${schema.format})` : "");
}

function rulesOf(schema) {
  const rules = [];
  const says = { minLength: "at least {} characters", maxLength: "at most {} characters", minimum: "≥ {}", maximum: "≤ {}",
    exclusiveMinimum: "> {}", exclusiveMaximum: "< {}", minItems: "at least {} items", maxItems: "at most {} items", pattern: "matches {}" };
  for (const part of [schema, ...(schema.anyOf ?? [])]) {
    for (const [name, words] of Object.entries(says)) {
      if (part[name] !== undefined) rules.push(words.replace("{}", part[name]));
    }
  }
  if (schema.default !== undefined && schema.default !== null) rules.push(`default ${JSON.stringify(schema.default)}`);
  return rules.join(", ");
}

/** The object, if any, that a schema, its items or one of its choices is about. */
function objectIn(schema) {
  const found = resolved(schema);
  if (found.properties) return found;
  const within = [found.items, ...(found.anyOf ?? []), ...(found.oneOf ?? [])].filter(Boolean);
  for (const one of within) {
    const object = objectIn(one);
    if (object) return object;
  }
  return null;
}

/** The members of an object as nested lists; a type inside itself is only named. */
function members(schema, outer = []) {
  const object = objectIn(schema);
  if (!object || outer.includes(object)) return null;
  const list = make("ul", { class: outer.length ? undefined : "schema" });
  for (const [name, member] of Object.entries(object.properties)) {
    const rules = rulesOf(member);
    list.append(make("li", {},
      make("code", {}, name), " ", make("span", { class: "quiet" }, typeOf(member)),
      object.required?.includes(name) ? make("span", { class: "needed" }, " required") : null,
      rules ? make("span", { class: "quiet" }, ` · ${rules}`) : null,
      member.description ? ` · ${member.description}` : null,
      members(member, [...outer, object])));
  }
  return list.children.length ? list : null;
}

/** A value that fits a schema, as a starting point for a body. */
function sample(schema, outer = []) {
  const found = resolved(schema);
  if (outer.includes(found)) return null;
  const inner = [...outer, found];
  if (found.examples?.length) return found.examples[0];
  if (found.default !== undefined) return found.default;
  if (found.const !== undefined) return found.const;
  if (found.enum) return found.enum[0];
  const choice = (found.anyOf ?? found.oneOf)?.find((one) => one.type !== "null");
  if (choice) return sample(choice, inner);
  if (found.properties) {
    return Object.fromEntries(Object.entries(found.properties).map(([name, member]) => [name, sample(member, inner)]));
  }
  switch ([found.type].flat()[0]) {
    case "array": return found.items ? [sample(found.items, inner)] : [];
    case "integer": case "number": return found.minimum ?? 0;
    case "boolean": return false;
    case "string": return found.format === "date-time" ? "2024-05-02T08:00:00.000Z" : "";
    default: return {};
  }
}

const jsonSchema = (content) => content?.["application/json"]?.schema;
const written = (value) => JSON.stringify(value, null, 2);

function parametersTable(parameters) {
  const rows = parameters.map((parameter) => make("tr", {},
    make("td", {}, make("code", {}, parameter.name), parameter.required ? make("span", { class: "needed" }, " required") : null),
    make("td", {}, parameter.in),
    make("td", { class: "quiet" }, typeOf(parameter.schema)),
    make("td", {}, [parameter.description, rulesOf(parameter.schema)].filter(Boolean).join(" · "))));
  return make("table", {},
    make("thead", {}, make("tr", {}, ...["Name", "In", "Type", ""].map((word) => make("th", { scope: "col" }, word)))),
    make("tbody", {}, ...rows));
}

function shape(title, schema) {
  const example = sample(schema);
  return [make("h3", {}, title),
    make("div", { class: "columns" },
      members(schema) ?? make("p", { class: "quiet" }, typeOf(schema)),
      example && Object.keys(example).length ? make("pre", { tabindex: "0" }, written(example)) : null)];
}

function audience(security) {
  const kinds = (security ?? description.security ?? []).flatMap((one) => Object.keys(one));
  const names = kinds.map((kind) => (description.components?.securitySchemes?.[kind]?.type === "apiKey" ? "API key" : "session"));
  return names.length ? names.join(" or ") : "anybody";
}

function credentials() {
  const value = document.getElementById("credential").value.trim();
  if (!value) return {};
  return document.getElementById("kind").value === "key" ? { "X-API-KEY": value } : { Authorization: `Bearer ${value}` };
}

function addressOf(path, parameters, form) {
  const query = new URLSearchParams();
  let address = path;
  for (const parameter of parameters) {
    const value = form.elements[`${parameter.in}.${parameter.name}`].value;
    if (parameter.in === "path") address = address.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else for (const one of typeOf(parameter.schema).includes("[]") ? value.split(",") : [value]) {
      if (one.trim()) query.append(parameter.name, one.trim());
    }
  }
  return query.size ? `${address}?${query}` : address;
}

function pretty(text) {
  const cut = text.length > SHOWN_OF_ANSWER;
  if (cut) return `${text.slice(0, SHOWN_OF_ANSWER)}\n… ${text.length} characters in all`;
  try { return written(JSON.parse(text)); } catch { return text; }
}

function keepToken(text) {
  try {
    const { token } = JSON.parse(text);
    if (typeof token !== "string") return;
    document.getElementById("kind").value = "session";
    document.getElementById("credential").value = token;
  } catch { /* not JSON: nothing to keep */ }
}

async function send(method, path, parameters, form, shown) {
  const address = addressOf(path, parameters, form);
  const body = form.elements.body?.value;
  const headers = { ...credentials(), ...(body === undefined ? {} : { "Content-Type": "application/json" }) };
  const began = performance.now();
  try {
    const answer = await fetch(address, { method: method.toUpperCase(), headers, body, credentials: "omit" });
    const text = await answer.text();
    if (answer.ok && path.endsWith("/auth/login")) keepToken(text);
    shown.replaceChildren(
      make("p", {}, make("strong", {}, `${answer.status} ${answer.statusText}`), ` after ${Math.round(performance.now() - began)} ms · `,
        make("code", {}, `${method.toUpperCase()} ${address}`)),
      make("pre", { tabindex: "0" }, pretty(text)));
  } catch (error) {
    shown.replaceChildren(make("p", {}, `No answer: ${error.message}`));
  }
}

function tryIt(method, path, operation, parameters) {
  const body = jsonSchema(operation.requestBody?.content);
  const shown = make("output", { "aria-live": "polite" });
  const button = make("button", { type: "submit" }, "Send");
  const form = make("form", {},
    parameters.length ? make("div", { class: "row" }, ...parameters.map((parameter) =>
      make("label", { class: "wide" }, `${parameter.name}${typeOf(parameter.schema).includes("[]") ? " (separated by commas)" : ""}`,
        make("input", { name: `${parameter.in}.${parameter.name}`, required: parameter.required, autocomplete: "off", spellcheck: "false" })))) : null,
    body ? make("label", {}, "Body", make("textarea", { name: "body", spellcheck: "false" })) : null,
    button, shown);
  if (body) form.elements.body.value = written(sample(body));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    await send(method, path, parameters, form, shown);
    button.disabled = false;
  });
  return form;
}

function errors(responses) {
  const rows = Object.entries(responses).filter(([status]) => status !== "200").map(([status, answer]) =>
    make("tr", {}, make("td", {}, make("code", {}, status)), make("td", {}, resolved(answer).description ?? "")));
  return rows.length ? [make("h3", {}, "Refusals"), make("table", {}, make("tbody", {}, ...rows))] : [];
}

function inside(method, path, operation) {
  const parameters = (operation.parameters ?? []).map(resolved);
  const body = jsonSchema(operation.requestBody?.content);
  const answer = jsonSchema(operation.responses["200"]?.content);
  return make("div", { class: "inside" },
    operation.description ? make("p", {}, operation.description) : null,
    make("p", { class: "quiet" }, `For: ${audience(operation.security)}`),
    ...(parameters.length ? [make("h3", {}, "Parameters"), parametersTable(parameters)] : []),
    ...(body ? shape("Body", body) : []),
    ...(answer ? shape("Answer (200)", answer) : []),
    ...errors(operation.responses),
    make("h3", {}, "Try it"), tryIt(method, path, operation, parameters));
}

/** One operation; its inside is made when it is first opened, so that a long list appears at once. */
function block({ id, method, path, operation }) {
  const details = make("details", { class: "operation", id },
    make("summary", {},
      make("span", { class: `method ${method}` }, method.toUpperCase()), make("span", { class: "path" }, path),
      make("span", { class: "quiet" }, operation.summary ?? "")));
  details.addEventListener("toggle", () => {
    if (details.open && details.children.length === 1) details.append(inside(method, path, operation));
  });
  return details;
}

function byTag() {
  const tags = new Map((description.tags ?? []).map((tag) => [tag.name, []]));
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const method of METHODS.filter((name) => methods[name])) {
      const operation = methods[method];
      const tag = operation.tags?.[0] ?? "other";
      if (!tags.has(tag)) tags.set(tag, []);
      tags.get(tag).push({ id: operation.operationId ?? `${method}${path}`, method, path, operation });
    }
  }
  return [...tags].filter(([, found]) => found.length);
}

function show() {
  document.getElementById("title").textContent = `${description.info.title} ${description.info.version}`;
  document.title = `${description.info.title}: REST reference`;
  document.getElementById("about").textContent = description.info.description ?? "";
  const list = document.getElementById("list");
  const operations = document.getElementById("operations");
  operations.replaceChildren();
  for (const [tag, found] of byTag()) {
    operations.append(make("section", {}, make("h2", {}, tag), ...found.map(block)));
    list.append(make("section", {}, make("h2", {}, tag), make("ul", {}, ...found.map(({ id, method, path, operation }) =>
      make("li", { "data-words": `${method} ${path} ${operation.summary ?? ""} ${tag}`.toLowerCase() },
        make("a", { href: `#${encodeURIComponent(id)}` }, make("span", { class: `method ${method}` }, method.toUpperCase()), operation.summary ?? path))))));
  }
}

function filter(words) {
  for (const section of document.getElementById("list").children) {
    const items = [...section.querySelectorAll("li")];
    for (const item of items) item.hidden = !words.every((word) => item.dataset.words.includes(word));
    section.hidden = items.every((item) => item.hidden);
  }
}

function openNamed() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!(named instanceof HTMLDetailsElement)) return;
  named.open = true;
  named.scrollIntoView();
}

async function start() {
  document.getElementById("filter").addEventListener("input", (event) =>
    filter(event.target.value.toLowerCase().split(/\s+/).filter(Boolean)));
  addEventListener("hashchange", openNamed);
  try {
    const answer = await fetch("/openapi.json", { credentials: "omit" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    description = await answer.json();
  } catch (error) {
    document.getElementById("state").textContent = `The description cannot be read: ${error.message}`;
    return;
  }
  show();
  openNamed();
}

start();
