// Before the first paint, so that the page does not flash in the other theme.
const saved = localStorage.getItem("theme");
if (saved) document.documentElement.dataset.theme = saved;
