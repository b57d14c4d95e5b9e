import { amount, gram } from "./money.ts";

/** What `api/budget` says, as far as it is shown. */
export interface Budget {
  network: string;
  free: boolean; // nothing is ever paid
  wallet: { address: string; balance_nano: number | null } | null; // of a balance that cannot be asked for, `null`
  deposits: { day_max_nano: number; today_nano: number };
  answers: { answer_max_nano: number | null; today_nano: number; all_nano: number; count: number };
}

/** The running budget: what answers cost today, of what may leave the wallet in a day. */
export function Purse({ budget: { answers, deposits, free, network } }: { budget: Budget }) {
  const most = deposits.day_max_nano;
  return (
    <div class="purse">
      <span class="row">
        <span class="muted"><span class="wide">Spent </span>today</span> <span class="number">{amount(answers.today_nano)}</span>
      </span>
      {!free && <meter min={0} max={Math.max(most, 1)} high={most * 0.9} optimum={0} value={answers.today_nano} aria-label="Of the day's limit" />}
      <span class="row muted">
        <span>{free ? "nothing costs anything" : `of ${gram(most)} a day`}</span> <span>{network}</span>
      </span>
    </div>
  );
}
