// Draw every figure of the page from the JSON beside it. Colours of text, axes and grid come from the style sheet.
for (const data of document.querySelectorAll("script[type='application/json']")) {
  const { data: traces, layout } = JSON.parse(data.textContent);
  const touch = matchMedia("(pointer: coarse)").matches;  // there a drag scrolls the page
  layout.dragmode = touch ? false : "zoom";
  if (document.documentElement.clientWidth < 640) {
    layout.height = Math.min(layout.height, 380);
    layout.margin = { ...layout.margin, l: 40 };
    layout.font = { ...layout.font, size: 11 };
  }
  Plotly.newPlot(data.dataset.figure, traces, layout, { responsive: true, displayModeBar: false });
}
