// Finds what a person would: by role and by the name that a screen reader says. Returns the elements that are shown.
const [role, wanted, exact] = arguments;
const native = {
    button: "button, input[type=submit], summary",
    checkbox: "input[type=checkbox]:not([role])",
    combobox: "select",
    complementary: "aside",
    dialog: "dialog[open]",
    heading: "h1, h2, h3, h4",
    link: "a[href]",
    radio: "input[type=radio]",
    row: "tr",
    searchbox: "input[type=search]",
    status: "output",
    textbox: "input:not([type]), input[type=text], input[type=email], input[type=url], input[type=password], input[type=number], textarea",
};
const text = (element) => (element.textContent || "").replace(/\s+/g, " ").trim();
const named = (ids) => ids.split(/\s+/).map((id) => document.getElementById(id)).filter(Boolean).map(text).join(" ");
const name = (element) =>
    element.getAttribute("aria-label") ||
    (element.hasAttribute("aria-labelledby") && named(element.getAttribute("aria-labelledby"))) ||
    (element.labels && element.labels.length && [...element.labels].map(text).join(" ")) ||
    element.getAttribute("alt") ||
    text(element) ||
    element.getAttribute("title") ||
    element.getAttribute("placeholder") ||
    "";
const shown = (element) => {
    const box = element.getBoundingClientRect();
    const style = getComputedStyle(element);
    return box.width > 0 && box.height > 0 && style.visibility !== "hidden" && !element.closest("[aria-hidden=true], [inert]");
};
const candidates = [...document.querySelectorAll(`[role="${role}"]${native[role] ? ", " + native[role] : ""}`)].filter(
    (element) => (element.getAttribute("role") || role) === role,
);
const fits = (said) => (exact ? said.trim() === wanted : said.toLowerCase().includes(wanted.toLowerCase()));
return candidates.filter((element) => shown(element) && fits(name(element)));
