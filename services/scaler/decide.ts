/** Work that waits in a task queue, as Temporal estimates it. Source: https://docs.temporal.io/worker-performance */
export interface Backlog {
  /** Tasks that wait for a worker. */
  readonly tasks: number;
  /** How long the oldest of them has waited, seconds. */
  readonly ageSeconds: number;
  /** Tasks that came per second. */
  readonly addRate: number;
  /** Tasks that went to workers per second. */
  readonly dispatchRate: number;
}

/** What the model is at. */
export interface ModelLoad {
  /** Conversations that are generated now. */
  readonly ongoing: number;
  /** Requests that wait for a slot. */
  readonly waiting: number;
  /** Replicas that answer; Ray scales them itself, this is for who watches both. */
  readonly replicas: number;
}

/** What is known now; null is a signal that could not be read. */
export interface Signals {
  readonly backlog: Backlog | null;
  readonly model: ModelLoad | null;
}

/** Limits and pace. */
export interface ScalingRules {
  /** Fewest and most replicas, 1 or more. */
  readonly min: number;
  readonly max: number;
  /** Turns that one replica shall have at once. */
  readonly workPerReplica: number;
  /** Age of the backlog that calls for one more replica whatever the counts say, seconds. @default 2 */
  readonly oldSeconds?: number;
  /** Least time between two steps up, milliseconds: new replicas need it to show an effect. @default 10000 */
  readonly upEveryMs?: number;
  /** How long fewer must have been enough, milliseconds. */
  readonly downAfterMs: number;
}

/** What is remembered from one look to the next. */
export interface Memory {
  /** What was wanted lately, oldest first; times in milliseconds. */
  readonly wanted: readonly { readonly at: number; readonly replicas: number }[];
  readonly raisedAt: number;
  readonly loweredAt: number;
}

/** How many replicas there shall be, and why. */
export interface Decision {
  readonly replicas: number;
  readonly reason: string;
  readonly memory: Memory;
}

/** Before the first look. */
export const blank: Memory = { wanted: [], raisedAt: Number.NEGATIVE_INFINITY, loweredAt: Number.NEGATIVE_INFINITY };

/**
 * Up at once and as far as needed, down one replica at a time and only after a while in which fewer would have been
 * enough all along. Without a signal nothing goes down.
 * @param now milliseconds of any clock that only goes forward
 */
export function decide(current: number, signals: Signals, rules: ScalingRules, memory: Memory, now: number): Decision {
  const { min, max, downAfterMs, upEveryMs = 10_000 } = rules;
  const bounded = (replicas: number) => Math.min(max, Math.max(min, replicas));
  const { backlog, model } = signals;
  if (bounded(current) !== current) {
    return { replicas: bounded(current), reason: `${current} is not within ${min} and ${max}`, memory };
  }
  if (backlog === null && model === null) return { replicas: current, reason: 'no signal', memory: blankFrom(memory) };
  const { replicas: wanted, reason } = wantedBy(current, signals, rules);
  const target = bounded(wanted);
  // A signal that is missing may hide work: as long as it is away, nothing counts as too much.
  const complete = backlog !== null && model !== null;
  const kept = memory.wanted.filter(({ at }) => now - at <= downAfterMs);
  const seen = complete ? [...kept, { at: now, replicas: target }] : [];
  const next: Memory = { ...memory, wanted: seen };
  if (target > current) {
    if (now - memory.raisedAt < upEveryMs) return { replicas: current, reason: 'raised a moment ago', memory: next };
    return { replicas: target, reason, memory: { ...next, raisedAt: now } };
  }
  if (target === current || !isEnough(current - 1, next, rules, now)) {
    return {
      replicas: current,
      reason: target === current ? 'as many as needed' : 'waiting: fewer are enough',
      memory: next,
    };
  }
  const since = `fewer were enough for ${Math.round(downAfterMs / 1000)} s: ${reason}`;
  return { replicas: current - 1, reason: since, memory: { ...next, loweredAt: now } };
}

/** Whether that many would have been enough for the whole window since the last step. */
function isEnough(
  replicas: number,
  { wanted, raisedAt, loweredAt }: Memory,
  rules: ScalingRules,
  now: number,
): boolean {
  const [oldest] = wanted;
  // Steps down follow each other faster than the first came, but not at once: a drain takes a while.
  const calm = now - raisedAt >= rules.downAfterMs && now - loweredAt >= rules.downAfterMs / 4;
  const whole = oldest !== undefined && now - oldest.at >= rules.downAfterMs * 0.9;
  return calm && whole && wanted.every((look) => look.replicas <= replicas);
}

function wantedBy(current: number, { backlog, model }: Signals, rules: ScalingRules) {
  const waiting = backlog?.tasks ?? 0;
  const atModel = (model?.ongoing ?? 0) + (model?.waiting ?? 0);
  const needed = Math.ceil((waiting + atModel) / rules.workPerReplica);
  const reason = `${waiting} tasks wait, ${atModel} turns are at the model, ${rules.workPerReplica} per replica`;
  const age = backlog?.ageSeconds ?? 0;
  if (waiting > 0 && age >= (rules.oldSeconds ?? 2) && needed <= current) {
    return { replicas: current + 1, reason: `the oldest of ${waiting} tasks waits for ${age.toFixed(1)} s` };
  }
  return { replicas: needed, reason };
}

const blankFrom = (memory: Memory): Memory => ({ ...memory, wanted: [] });
