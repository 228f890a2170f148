/* An interactive figure in a notebook, with the browser's own controls. See live_face.py. */

function element(tag, attributes, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

function slider(axis, index, id, moved) {
  const input = element("input", {
    id, type: "range", min: 0, max: axis.values.length - 1, step: 1, value: index,
  });
  const output = element("output", {});
  output.htmlFor.add(id);
  const say = (to) => {
    output.value = axis.values[to];
    input.setAttribute("aria-valuetext", axis.values[to]);
  };
  input.addEventListener("input", () => {
    say(input.value);
    moved(Number(input.value));
  });
  say(index);
  const label = element("label", { htmlFor: id }, axis.name);
  const show = (to) => {
    input.value = to;
    say(to);
  };
  return [element("div", { className: "bn-control" }, label, input, output), show];
}

function buttons(axis, index, id, moved) {
  const inputs = axis.values.map((_, value) => {
    const input = element("input", { type: "radio", name: id, value, checked: value === index });
    input.addEventListener("change", () => moved(value));
    return input;
  });
  const labels = axis.values.map((text, value) =>
    element("label", {}, inputs[value], element("span", {}, text)));
  const name = element("span", { id: `${id}-name` }, axis.name);
  const row = element("div", { className: "bn-control bn-choice", role: "radiogroup" },
    name, element("div", { className: "bn-buttons" }, ...labels));
  row.setAttribute("aria-labelledby", name.id);
  return [row, (to) => { inputs[to].checked = true; }];
}

function render({ model, el }) {
  // The host may load this module anew for each figure: a counter would give all of them one name.
  const view = `bn-live-${Math.random().toString(36).slice(2)}`;
  const picture = element("img", {});
  let source = null;

  function drawn() {
    if (source) URL.revokeObjectURL(source);
    source = URL.createObjectURL(new Blob([model.get("picture")], { type: "image/png" }));
    picture.src = source;
    picture.alt = model.get("alt");
  }

  const controls = model.get("axes").map((axis, position) => {
    const moved = (index) => {
      model.set("indices", model.get("indices").with(position, index));
      model.save_changes();
    };
    const make = axis.choice ? buttons : slider;
    return make(axis, model.get("indices")[position], `${view}-${position}`, moved);
  });

  function placed() {
    controls.forEach(([, show], position) => show(model.get("indices")[position]));
  }

  model.on("change:picture change:alt", drawn);
  model.on("change:indices", placed);
  drawn();
  const rows = element("div", { className: "bn-controls" }, ...controls.map(([row]) => row));
  rows.addEventListener("keydown", (event) => event.stopPropagation()); // JupyterLab takes arrow keys
  el.append(element("figure", { className: "bn-live" }, rows, picture,
    element("figcaption", {}, model.get("caption"))));
  return () => {
    model.off("change:picture change:alt", drawn);
    model.off("change:indices", placed);
    URL.revokeObjectURL(source);
  };
}

export default { render };
