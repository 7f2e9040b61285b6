// What jsdom does not have and the window uses.
globalThis.ResizeObserver ??= class {
  observe(): void {}
  unobserve(): void {}
  disconnect(): void {}
};
globalThis.CSS ??= {} as typeof CSS;
CSS.escape ??= (text: string) => text.replace(/[^\w-]/g, (letter) => `\\${letter}`);
Element.prototype.scrollIntoView ??= () => {};
globalThis.requestAnimationFrame ??= (act) => setTimeout(() => act(performance.now()), 0) as unknown as number;
// axe measures text with it; what it finds there is not used.
HTMLCanvasElement.prototype.getContext = () => null;

export {};
