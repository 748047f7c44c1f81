import type { Schemas } from '@qdrant/js-client-rest';
import type { Scope } from './scope.ts';

/** What is stored beside a vector: what filters need, never the text. */
export interface PointPayload {
  readonly tenant: string;
  readonly owner: string;
  /** Empty where there is none, as persona and session_id. */
  readonly team: string;
  readonly persona: string;
  readonly session_id: string;
  readonly kind: string;
  /** Milliseconds since the epoch. */
  readonly created_at: number;
  /** Milliseconds since the epoch; far away where there is none. */
  readonly expires_at: number;
}

/** Stands for "never" in {@link PointPayload.expires_at}. */
export const never = Number.MAX_SAFE_INTEGER;

type Filter = Schemas['Filter'];
type Condition = Schemas['FieldCondition'];

const is = (key: keyof PointPayload, value: string): Condition => ({ key, match: { value } });
const isAny = (key: keyof PointPayload, values: readonly string[]): Condition => ({ key, match: { any: [...values] } });

/**
 * The filter of a scope. The tenant is always the first condition, in a collection of its own too; values are values,
 * whatever they contain.
 */
export function filterOf({ tenant, visible, filter }: Scope, now: number): Filter {
  const { owner, team, persona, sessionId, kinds, since, until } = filter;
  return {
    must: [
      is('tenant', tenant),
      ...(visible.whole === true ? [] : [{ should: visibleConditions(visible) }]),
      ...(owner === undefined ? [] : [is('owner', owner)]),
      ...(team === undefined ? [] : [is('team', team)]),
      ...(persona === undefined ? [] : [is('persona', persona ?? '')]),
      ...(sessionId === undefined ? [] : [is('session_id', sessionId)]),
      ...(kinds === undefined ? [] : [isAny('kind', kinds)]),
      ...(since === undefined ? [] : [{ key: 'created_at', range: { gte: since.getTime() } }]),
      ...(until === undefined ? [] : [{ key: 'created_at', range: { lt: until.getTime() } }]),
      { key: 'expires_at', range: { gt: now } },
    ],
  };
}

/** Nothing visible must not become "no condition": no point has an empty owner. */
function visibleConditions({ owner, teams = [], personas = [], sessions = [] }: Scope['visible']): Condition[] {
  const conditions = [
    ...(owner === undefined ? [] : [is('owner', owner)]),
    ...(teams.length === 0 ? [] : [isAny('team', teams)]),
    ...(personas.length === 0 ? [] : [isAny('persona', personas)]),
    ...(sessions.length === 0 ? [] : [isAny('session_id', sessions)]),
  ];
  return conditions.length === 0 ? [is('owner', '')] : conditions;
}
