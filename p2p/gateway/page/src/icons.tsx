/** Drawn here, in one weight: a page that loads from nobody else has no icon font either. */
import type { ComponentChildren } from "preact";

function Icon({ children }: { children: ComponentChildren }) {
  return (
    <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.6" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
      {children}
    </svg>
  );
}

export const Cocoon = () => (
  <Icon>
    <path d="M12 2.6c3.9 0 6.2 4.2 6.2 9.4s-2.3 9.4-6.2 9.4S5.8 17.2 5.8 12 8.1 2.6 12 2.6Z" />
    <path d="M6.9 7.6c3.2 2 7.1 1.8 10.2-.3M5.9 11.6c3.7 2.5 8.4 2.4 12.2-.5M6.5 15.9c3.4 2 7.6 1.8 10.8-.4" />
  </Icon>
);
export const Thread = () => (
  <svg class="thread" viewBox="0 0 40 16" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" aria-hidden="true">
    <path d="M1 8c5-9 10-9 13 0s8 9 12 0 9-8 13 0" />
  </svg>
);
export const Talk = () => <Icon><path d="M20 11.5a7.5 7.5 0 0 1-11 6.7L4.5 19.5l1.3-4.2A7.5 7.5 0 1 1 20 11.5Z" /></Icon>;
export const People = () => <Icon><circle cx="9" cy="8.5" r="3.5" /><path d="M2.8 19.5c.6-3.6 3-5.5 6.2-5.5s5.6 1.9 6.2 5.5M16 5.3a3.5 3.5 0 0 1 0 6.4M18 14.5c1.8.8 2.9 2.5 3.3 5" /></Icon>;
export const Channel = () => <Icon><path d="M4 8.5h15m-4-4 4 4-4 4M20 15.5H5m4-4-4 4 4 4" /></Icon>;
export const Bars = () => <Icon><path d="M4 20h16M7 20v-6M12 20V5M17 20v-9" /></Icon>;
export const Sliders = () => <Icon><path d="M4 7h9M17 7h3M4 17h3M11 17h9" /><circle cx="15" cy="7" r="2" /><circle cx="9" cy="17" r="2" /></Icon>;
export const Send = () => <Icon><path d="M12 19V5m-6 6 6-6 6 6" /></Icon>;
export const Stop = () => <svg viewBox="0 0 24 24" fill="currentColor" aria-hidden="true"><rect x="6.5" y="6.5" width="11" height="11" rx="2" /></svg>;
export const Chevron = () => <Icon><path d="m6 9 6 6 6-6" /></Icon>;
export const Handover = () => <Icon><path d="M4 7h9a4 4 0 0 1 4 4v6m-3.5-3.5L17 17l3.5-3.5" /></Icon>;
