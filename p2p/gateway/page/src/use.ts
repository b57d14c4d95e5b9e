/** What components share of the world: things that are asked for again and again, and what the browser keeps. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { Failed, get } from "./api.ts";
import type { Problem } from "./problems.ts";

export interface Asked<T> {
  value: T | null; // the last that came, also while a newer one is awaited or failed
  problem: Problem | null;
  again: () => void;
}

/** What is at `path`, and again every so many seconds while the page is looked at. */
export function useAsked<T>(path: string, everyS: number): Asked<T> {
  const [value, setValue] = useState<T | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [round, setRound] = useState(0);
  useEffect(() => {
    const leaving = new AbortController();
    async function look() {
      if (document.hidden) return;
      try {
        setValue(await get<T>(path, leaving.signal));
        setProblem(null);
      } catch (error) {
        if (!leaving.signal.aborted) setProblem(error instanceof Failed ? error.problem : null);
      }
    }
    void look();
    const timer = setInterval(look, everyS * 1000);
    document.addEventListener("visibilitychange", look);
    return () => {
      leaving.abort();
      clearInterval(timer);
      document.removeEventListener("visibilitychange", look);
    };
  }, [path, everyS, round]);
  return { value, problem, again: useCallback(() => setRound((before) => before + 1), []) };
}

const NEAR_PX = 48;
const NARROW = "(max-width: 46rem)"; // as in the style sheets

/** Whether this is a phone, by its width. */
export function useNarrow(): boolean {
  const [narrow, setNarrow] = useState(() => matchMedia(NARROW).matches);
  useEffect(() => {
    const query = matchMedia(NARROW);
    const changed = () => setNarrow(query.matches);
    query.addEventListener("change", changed);
    return () => query.removeEventListener("change", changed);
  }, []);
  return narrow;
}

/** The place that the address names after its `#`. */
export function usePlace<P extends string>(places: readonly P[]): P {
  const read = () => places.find((place) => `#${place}` === location.hash) ?? places[0]!;
  const [place, setPlace] = useState(read);
  useEffect(() => {
    const moved = () => setPlace(read());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return place;
}

/** Keeps the end of what grows in sight, unless one has scrolled up to read. */
export function useFollowing<E extends HTMLElement>(grows: unknown) {
  const box = useRef<E>(null);
  const follows = useRef(true);
  const before = useRef(0);
  const onScroll = () => {
    const { scrollHeight, scrollTop, clientHeight } = box.current!;
    // What has grown meanwhile also puts the end out of sight; only who goes up wants to stay there.
    if (scrollHeight - scrollTop - clientHeight < NEAR_PX) follows.current = true;
    else if (scrollTop < before.current) follows.current = false;
    before.current = scrollTop;
  };
  useEffect(() => {
    if (follows.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [grows]);
  return { box, onScroll, follow: () => (follows.current = true) };
}
