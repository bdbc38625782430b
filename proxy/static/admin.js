// The admin listener's page: asks /status and /migrations every two seconds and draws what they say. Text goes in as
// text, never as markup: names and messages come from elsewhere.
"use strict";

const STATES = ["PLANNED", "PREPARED", "CAPTURING", "BACKFILLING", "SYNCED", "CANARY", "SWITCHED", "COMPLETED"];
const EVERY_MS = 2000;
const opened = new Set(); // collections whose history is shown

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function span(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

const count = (number) => number.toLocaleString("en");

function bar(name, percent, told, kind) {
  const filled = make("i");
  filled.style.width = `${percent}%`;
  const meter = make("div", { role: "progressbar", "aria-label": name, "aria-valuenow": percent.toFixed(0) }, filled);
  return make("div", { class: `bar ${kind ?? ""}` }, make("span", {}, name), meter, make("span", { class: "soft" }, told));
}

function states(one) {
  const here = one.state === "FAILED" || one.state === "CANCELLED" ? -1 : STATES.indexOf(one.state);
  const items = STATES.map((state, at) =>
    make("li", { class: at === here ? "here" : at < here ? "past" : null }, state)
  );
  if (here < 0) items.push(make("li", { class: "here failed" }, one.state));
  return make("ol", { class: "states" }, ...items);
}

function copied(one) {
  const parts = [`${count(one.copied)} of ${count(one.total)}`];
  if (one.eta !== null) parts.push(`${count(Math.round(one.rate))} a second, ${span(one.eta)} left`);
  return parts.join(", ");
}

function facts(one) {
  const now = Date.now() / 1000;
  const found = Object.entries(one.findings).map(([kind, many]) => `${many} ${kind}`).join(", ");
  const ways = Object.entries(one.serving.reads).map(([way, many]) => `${count(many)} ${way}`).join(", ");
  const rows = [
    ["backlog", one.backlog.count ? `${count(one.backlog.count)} written points, the oldest for ${span(one.backlog.age)}`
      : "none: the new index is in step", one.backlog.age > 10 ? "warn" : null],
    ["verified", one.verified_at === null ? "never" : `${span(now - one.verified_at)} ago: ${found || "nothing found"}`,
      found ? "bad" : one.verified_at === null ? null : "good"],
    ["lately", ways || null],
    ["fallbacks", one.serving.fallbacks ? `${count(one.serving.fallbacks)} reads that the old index answered instead`
      : null, "warn"],
    ["shadow", one.shadow ? `${one.shadow} % of queries` : null],
    ["overlap@10", one.serving.overlap === null ? null
      : `${one.serving.overlap.toFixed(2)} over ${count(one.serving.shadowed)} shadowed queries`],
    ["spend", `${count(one.tally.encoded)} texts, about ${count(one.tally.tokens)} tokens`],
    ["adapter", one.refitted ? `fitted again on ${count(one.refitted)} re-encoded points` : null],
    ["without vector", one.dead_letters ? `${count(one.dead_letters)} points` : null, "warn"],
    ["waits", one.throttled, "warn"],
    ["paused", one.paused ? "by an operator" : null, "warn"],
    ["failed", one.error, "bad"],
    ["goal", one.waits?.replace(/^goal /, "")],
    ["stepped back", one.stepped_back, "bad"],
    ["gates", one.gates.length ? one.gates.join("; ") : null],
    ["next", one.verbs.join(", ")],
  ];
  return make("dl", {}, ...rows.filter(([, told]) => told).flatMap(([name, told, kind]) =>
    [make("dt", {}, name), make("dd", { class: kind }, told)]));
}

async function history(collection, into) {
  const events = await ask(`migrations/${encodeURIComponent(collection)}/history`);
  const rows = events.slice(-20).reverse().map((event) => make("tr", {},
    make("td", {}, new Date(event.at * 1000).toLocaleString()), make("td", {}, event.actor),
    make("td", {}, event.step), make("td", {}, event.target), make("td", {}, event.reason)));
  into.replaceChildren(make("table", {}, ...rows));
}

function card(one) {
  const served = one.state === "COMPLETED" ? 100 : one.percent;
  const place = make("div");
  const more = make("details", opened.has(one.collection) ? { open: "" } : {}, make("summary", {}, "history"), place);
  more.addEventListener("toggle", () => {
    if (more.open) { opened.add(one.collection); history(one.collection, place); } else opened.delete(one.collection);
  });
  if (more.open) history(one.collection, place);
  return make("section", {},
    make("div", { class: "head" }, make("h2", {}, one.collection),
      make("span", { class: "soft" }, `${one.spec.from_model} → ${one.spec.to_model}, into ${one.spec.target}`)),
    states(one),
    bar("copied", one.total ? 100 * one.copied / one.total : 0, copied(one)),
    one.verifying ? bar("compared", one.total ? Math.min(100, 100 * one.compared / one.total) : 0,
      `${count(one.compared)} points`) : null,
    bar("reads", served, `${served} % from the new index`, "reads"),
    facts(one), more);
}

async function ask(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  if (!answer.ok) throw new Error(`${path}: HTTP ${answer.status}`);
  return answer.json();
}

function draw(status, migrations) {
  const states = Object.fromEntries(migrations.map((one) => [one.collection, one.state]));
  const problem = status.last_problem ? ` · the file on disk is refused: ${status.last_problem}` : "";
  const serving = document.getElementById("serving");
  serving.textContent = `${status.draining ? "draining" : "serving"} generation ${status.generation}${problem}`;
  serving.className = problem ? "bad" : "";
  document.getElementById("migrations").replaceChildren(...migrations.map(card));
  document.getElementById("collections").replaceChildren(...status.collections.map((one) => make("tr", {},
    make("td", {}, one.name), make("td", {}, one.index_model), make("td", {}, one.query_model),
    make("td", {}, one.migrate_to ? `to ${one.migrate_to}: ${states[one.name] ?? "not started"}` : "–"))));
  document.getElementById("workers").replaceChildren(...status.workers.map((one) => make("tr", {},
    make("td", {}, `${one.worker}`), make("td", {}, `${one.pid ?? "starting"}`), make("td", {}, `${one.restarts}`),
    make("td", {}, one.error ?? `generation ${one.generation ?? "–"}`))));
}

async function look() {
  try {
    draw(...await Promise.all([ask("status"), ask("migrations/")]));
  } catch (error) {
    document.getElementById("serving").textContent = `no answer: ${error.message}`;
  }
  setTimeout(look, EVERY_MS);
}

look();
