// Search, arrow keys, and the controls of single pages. Every page reads well without it.
(() => {
  const base = document.body.dataset.base;
  const field = document.querySelector("#find"), list = document.querySelector("#found");

  // ---- search: "conv5:42", "conv5 42", "42" on a page of its layer, or part of a class's name
  let loading = null;
  const index = () => loading ??= new Promise((done) => {
    const script = document.createElement("script");
    script.src = `${base}assets/units.js`;
    script.onload = () => done(window.zfcore);
    document.head.append(script);
  });
  const matches = ({ layers, classes }, text) => {
    const words = text.trim().toLowerCase(), found = [];
    const asked = words.match(/^(.*?)[:\s]*(\d+)?(?:@.*)?$/), here = document.body.dataset.layer?.toLowerCase();
    for (const [name, folder, maps, dead] of layers) {
      const lower = name.toLowerCase();
      if (asked[2] !== undefined && (asked[1] === lower || (asked[1] === "" && (!here || here === lower)))) {
        const unit = Number(asked[2]);
        if (unit < maps) found.push({ text: `${name}:${unit}`, note: dead.includes(unit) ? "never fired" : "",
          path: dead.includes(unit) ? `${folder}/index.html` : `${folder}/${unit}.html` });
      }
      if (words && lower.includes(words)) found.push({ text: name, note: `${maps} maps`, path: `${folder}/index.html` });
    }
    if (words.length > 1) {
      for (const [label, units] of Object.entries(classes)) {
        if (!label.toLowerCase().includes(words)) continue;
        for (const [layer, unit, count] of [...units].sort((a, b) => b[2] - a[2]).slice(0, 6)) {
          const [name, folder] = layers[layer];
          found.push({ text: `${name}:${unit}`, note: `${label}: ${count} of its images`, path: `${folder}/${unit}.html` });
        }
        if (found.length > 20) break;
      }
    }
    return found.slice(0, 12);
  };
  let shown = [], chosen = -1;
  const close = () => { list.hidden = true; field.setAttribute("aria-expanded", "false"); field.removeAttribute("aria-activedescendant"); };
  const choose = (place) => {
    chosen = place;
    [...list.children].forEach((item, number) => item.setAttribute("aria-selected", String(number === chosen)));
    if (chosen >= 0) field.setAttribute("aria-activedescendant", `found-${chosen}`);
    else field.removeAttribute("aria-activedescendant");
  };
  const update = async () => {
    shown = field.value.trim() ? matches(await index(), field.value) : [];
    list.replaceChildren(...shown.map((each, number) => {
      const item = document.createElement("li"), note = document.createElement("small");
      item.id = `found-${number}`; item.role = "option"; item.textContent = `${each.text} `; note.textContent = each.note;
      item.append(note);
      item.addEventListener("pointerdown", (event) => { event.preventDefault(); go(number); });
      return item;
    }));
    list.hidden = !shown.length;
    field.setAttribute("aria-expanded", String(!list.hidden));
    field.classList.toggle("unknown", Boolean(field.value.trim()) && !shown.length);
    choose(shown.length ? 0 : -1);
  };
  const go = (place) => { if (shown[place]) location.href = base + shown[place].path; };
  field.addEventListener("focus", () => { index(); update(); });
  field.addEventListener("input", update);
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (shown.length) choose((chosen + (event.key === "ArrowDown" ? 1 : shown.length - 1)) % shown.length);
    } else if (event.key === "Escape") close();
  });
  document.querySelector("#search").addEventListener("submit", async (event) => { event.preventDefault(); await update(); go(chosen); });

  // ---- keys: "/" searches, arrows turn a unit's pages
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea, [role=region]") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); field.focus(); }
    const way = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
    const link = way && document.querySelector(`link[rel=${way}]`);
    if (link) location.href = link.href;
  });

  // ---- a layer's page: projections or patches, and their order
  const units = document.querySelector("#units");
  document.querySelector("#choice")?.addEventListener("input", (event) => {
    const form = new FormData(event.currentTarget), order = form.get("order");
    if (form.has("show")) units.classList.toggle("projected", form.get("show") === "projected");
    const compare = { map: (a, b) => a.map - b.map, value: (a, b) => b.value - a.value,
      class: (a, b) => (a.class || "\uffff").localeCompare(b.class || "\uffff") || a.map - b.map }[order];
    units.append(...[...units.children].sort((a, b) => compare(a.dataset, b.dataset)));
  });

  // ---- occlusion: which map lies over the image, and how strongly
  const stage = document.querySelector("#occlusion");
  if (stage) {
    const apply = () => {
      const map = stage.querySelector("input[name=map]:checked").value;
      for (const each of stage.querySelectorAll("[data-map]")) {
        each.hidden = each.dataset.map !== map;
        if (each.classList.contains("over")) each.style.opacity = stage.querySelector("#strength").value / 100;
      }
    };
    stage.addEventListener("input", apply);
    apply();
  }

  // ---- evolution: a scrubber over the epochs
  const epoch = document.querySelector("#epoch");
  epoch?.addEventListener("input", () => {
    document.querySelector("#epoch-now").textContent = epoch.dataset.epochs.split(",")[epoch.value];
    for (const each of document.querySelectorAll("[data-epoch]")) each.hidden = each.dataset.epoch !== epoch.value;
  });

  // ---- explanations: which methods stand side by side
  document.querySelector("#columns")?.addEventListener("input", (event) => {
    for (const each of document.querySelectorAll(`[data-column="${event.target.value}"]`)) each.hidden = !event.target.checked;
  });
})();
