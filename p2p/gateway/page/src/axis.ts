/** A round number of nano at or above `highest`, and what to write along the axis up to it. */
export function axisOf(highest: number): { top: number; ticks: number[] } {
  const rough = Math.max(highest, 4) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) ?? 10) * power;
  const whole = Math.ceil(step);
  const count = Math.ceil(Math.max(highest, 1) / whole);
  return { top: whole * count, ticks: Array.from({ length: count + 1 }, (_, at) => at * whole) };
}
