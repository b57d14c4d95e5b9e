import { axisOf } from "./axis.ts";
import { gram } from "./money.ts";
import { useNarrow } from "./use.ts";

export interface Day {
  day: string; // 2026-11-22
  earnedNano: number;
  settledNano: number; // the part of it that is paid out
}

const HEIGHT = 220;
const LEFT = 70;
const BOTTOM = 24;
const TOP = 8;

/** Bars for days. Whoever cannot see it has the table below, which says the same. */
export function Plot({ days }: { days: Day[] }) {
  const width = useNarrow() ? 340 : 720; // in pixels of the drawing, which has the width that there is
  const { top, ticks } = axisOf(Math.max(...days.map((day) => day.earnedNano)));
  const y = (nano: number) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - nano / top);
  const step = (width - LEFT) / Math.max(days.length, 7);
  const bar = (at: number, nano: number, name: string) => (
    <rect class={name} x={LEFT + step * at + step * 0.18} width={step * 0.64} y={y(nano)} height={y(0) - y(nano)} rx="3" />
  );
  return (
    <figure class="plot">
      <svg viewBox={`0 0 ${width} ${HEIGHT}`} role="img" aria-label="Earned and settled, by day, in GRAM">
        {ticks.map((tick) => (
          <g key={tick}>
            <line class="grid" x1={LEFT} x2={width} y1={y(tick)} y2={y(tick)} />
            <text x={LEFT - 10} y={y(tick) + 4} text-anchor="end">{gram(tick)}</text>
          </g>
        ))}
        {days.map((day, at) => (
          <g key={day.day}>
            {bar(at, day.earnedNano, "earned")}
            {bar(at, day.settledNano, "settled")}
            {at % Math.ceil((days.length * 60) / (width - LEFT)) === 0 && (
              <text x={LEFT + step * (at + 0.5)} y={HEIGHT - 6} text-anchor="middle">{day.day.slice(5)}</text>
            )}
          </g>
        ))}
      </svg>
      <ul class="key">
        <li class="settled">settled on chain</li>
        <li class="earned">earned, not settled yet</li>
      </ul>
    </figure>
  );
}
