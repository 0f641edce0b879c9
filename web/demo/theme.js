// Colours live in style.css; canvases ask for them here.

let known = new Map();
const listeners = [];

/** The value of a custom property, such as `--text`. */
export function colour(name) {
    if (!known.has(name)) known.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    return known.get(name);
}

/** Calls back when light turns dark, or the other way. */
export function onTheme(listener) {
    listeners.push(listener);
}

matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
    known = new Map();
    for (const listener of listeners) listener();
});
