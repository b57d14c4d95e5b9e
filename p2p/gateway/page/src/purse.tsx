import { amount, gram } from "./money.ts";

/** What `api/allowance` says: what whoever looks may spend in a day, by the limit that leaves least. */
export interface Allowance {
  network: string;
  free: boolean; // nothing is ever paid
  limit: "key" | "gateway" | "wallet" | null;
  day_max_nano: number | null;
  today_nano: number;
}

const WHOSE: Record<NonNullable<Allowance["limit"]>, string> = { key: "a day, your key", gateway: "a day", wallet: "a day" };

/** The running budget. */
export function Purse({ allowance: { day_max_nano: most, free, limit, network, today_nano } }: { allowance: Allowance }) {
  return (
    <div class="purse">
      <span class="row">
        <span class="muted"><span class="wide">Spent </span>today</span> <span class="number">{amount(today_nano)}</span>
      </span>
      {!free && most !== null && (
        <meter min={0} max={Math.max(most, 1)} high={most * 0.9} optimum={0} value={today_nano} aria-label="Of the day's limit" />
      )}
      <span class="row muted">
        <span>{free ? "nothing costs anything" : limit && most !== null ? `of ${gram(most)} ${WHOSE[limit]}` : "no limit"}</span> <span>{network}</span>
      </span>
    </div>
  );
}
