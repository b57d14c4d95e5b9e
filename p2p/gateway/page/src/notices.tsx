import type { ComponentChildren } from "preact";

import { Cocoon } from "./icons.tsx";
import type { Problem } from "./problems.ts";

/** What went wrong, why, and what to do next. */
export function ProblemBox({ problem, children }: { problem: Problem; children?: ComponentChildren }) {
  return (
    <div class="problem" role="alert">
      <strong>{problem.title}</strong>
      <p>{problem.why}</p>
      <p>{problem.next}</p>
      <div class="actions">
        {children}
        {problem.place && (
          <a class="small" href={`#${problem.place}`}>
            Open settings
          </a>
        )}
      </div>
    </div>
  );
}

/** While the first look at something is under way. */
export function Looking() {
  return (
    <p class="looking muted" role="status">
      Looking…
    </p>
  );
}

/** In place of a list in which there is nothing yet. */
export function Nothing({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <div class="nothing">
      <Cocoon />
      <strong>{title}</strong>
      <p>{children}</p>
    </div>
  );
}
