// Jump to a unit by its name: "conv5:120", "conv5 120", or a number alone for the layer in view.
(() => {
  const field = document.querySelector("#jump");
  const sections = [...document.querySelectorAll("section[data-layer]")];
  const inView = () => {
    const passed = sections.filter((section) => section.getBoundingClientRect().top < innerHeight / 2);
    return (passed.at(-1) ?? sections[0])?.dataset.layer ?? "";
  };
  const find = (text) => {
    const name = text.trim().replace(/@.*$/, "").replace(/\s*[:\s]\s*/, ":");
    return document.getElementById(/^\d+$/.test(name) ? `${inView()}:${name}` : name);
  };
  field.form.addEventListener("submit", (event) => {
    event.preventDefault();
    const found = field.value.trim() ? find(field.value) : null;
    field.classList.toggle("unknown", !found);
    if (found) location.hash = encodeURIComponent(found.id);
  });
  field.addEventListener("input", () => field.classList.remove("unknown"));
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== field) { event.preventDefault(); field.focus(); }
  });
})();
