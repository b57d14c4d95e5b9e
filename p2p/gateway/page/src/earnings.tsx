import { gram } from "./money.ts";
import { Looking, Nothing, ProblemBox } from "./notices.tsx";
import { type Day, Plot } from "./plot.tsx";
import { useAsked } from "./use.ts";

interface Earnings {
  provider_here: boolean;
  models: { day: string; model: string; answers: number; earned_nano: number; settled_nano: number }[];
  fees: { day: string; settlements: number; fee_nano: number }[];
  earned_nano: number;
  settled_nano: number;
  fee_nano: number;
}

/** What the provider of the same home sold. */
export function EarningsPage() {
  const { value, problem } = useAsked<Earnings>("api/earnings", 15);
  return (
    <div>
      <header>
        <h1>Earnings</h1>
        <p>What the provider of this home sold, and what it cost to be paid on chain.</p>
      </header>
      {problem && <ProblemBox problem={problem} />}
      {!value && !problem && <Looking />}
      {value?.provider_here === false && <Nothing title="No provider here">Earnings are those of a provider with the same home as this gateway. To be one, run: python -m p2p.node provide</Nothing>}
      {value?.provider_here && value.models.length === 0 && <Nothing title="Nothing was sold yet">The first answer that the provider of this home sells will be here.</Nothing>}
      {value && value.models.length > 0 && (
        <>
          <Sums of={value} />
          <Plot days={daysOf(value)} />
          <Table of={value} />
        </>
      )}
    </div>
  );
}

function daysOf({ models }: Earnings): Day[] {
  const days = new Map<string, Day>();
  for (const { day, earned_nano, settled_nano } of models) {
    const sum = days.get(day) ?? { day, earnedNano: 0, settledNano: 0 };
    days.set(day, { day, earnedNano: sum.earnedNano + earned_nano, settledNano: sum.settledNano + settled_nano });
  }
  return [...days.values()].sort((one, other) => one.day.localeCompare(other.day)).slice(-30);
}

function Sums({ of: { models, earned_nano, settled_nano, fee_nano } }: { of: Earnings }) {
  const sum = (of: (one: Earnings["models"][number]) => number) => models.reduce((before, one) => before + of(one), 0);
  const figures: [string, string][] = [
    ["Earned", gram(earned_nano)],
    ["Settled on chain", gram(settled_nano)],
    ["Fees", gram(fee_nano)],
  ];
  return (
    <dl class="sums">
      {figures.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value} <small>GRAM</small></dd>
        </div>
      ))}
      <div>
        <dt>Answers</dt>
        <dd>{sum((one) => one.answers).toLocaleString("en")}</dd>
      </div>
    </dl>
  );
}

function Table({ of: { models, fees } }: { of: Earnings }) {
  const newest = [...models].sort((one, other) => other.day.localeCompare(one.day));
  const fee = new Map(fees.map((day) => [day.day, day]));
  const first = new Map(models.map((one) => [one.day, one.model] as const).reverse());
  return (
    <table class="records">
      <caption class="hidden">Earnings by day and model</caption>
      <thead>
        <tr>
          <th scope="col">Day</th>
          <th scope="col">Model</th>
          <th scope="col" class="figure">Answers</th>
          <th scope="col" class="figure">Earned</th>
          <th scope="col" class="figure">Settled</th>
          <th scope="col" class="figure">Fees of the day</th>
        </tr>
      </thead>
      <tbody>
        {newest.map((one) => (
          <tr key={one.day + one.model}>
            <td>{one.day}</td>
            <td data-name="Model">{one.model.split("/").at(-1) || "not known"}</td>
            <td data-name="Answers" class="figure">{one.answers}</td>
            <td data-name="Earned" class="figure">{gram(one.earned_nano)}</td>
            <td data-name="Settled" class="figure">{gram(one.settled_nano)}</td>
            <td data-name="Fees of the day" class="figure">{first.get(one.day) === one.model && fee.has(one.day) ? gram(fee.get(one.day)!.fee_nano) : "–"}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
