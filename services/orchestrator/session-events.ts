import { type Actor, type EventData, event, type OutgoingEvent } from '@somagent/events';
import {
  budgetFailure,
  type EndInput,
  type FinishInput,
  type Requester,
  type SessionInput,
  type Timings,
  type TurnInput,
} from './contract.ts';

/** The platform itself. */
export const system: Actor = { kind: 'system', id: 'orchestrator', client: null };

const origin = (tenant: string, by: Requester | undefined) => ({
  tenant,
  actor: by?.actor ?? system,
  requestId: by?.requestId ?? null,
});

/** Whoever created a session: its subject, where an older gateway does not say who asked. */
const creatorOf = ({ by, subject }: Pick<SessionInput, 'by' | 'subject'>): Requester =>
  by ?? { actor: { kind: 'service-account', id: subject, client: null }, requestId: null };

/** What the rest of the platform learns when a session is stored. */
export function openedEvents(input: SessionInput): readonly OutgoingEvent[] {
  const { tenant, sessionId, subject: owner, teams = [], persona = null } = input;
  const common = origin(tenant, creatorOf(input));
  return [
    event('audit.session', 'session.opened', { ...common, data: { sessionId, owner, persona } }),
    event('session.lifecycle', 'session.opened', { ...common, data: { sessionId, owner, teams: [...teams] } }),
  ];
}

/** What it learns when an attempt at a turn begins. */
export function startedEvents(
  { tenant, sessionId }: { readonly tenant: string; readonly sessionId: string },
  turn: TurnInput,
  attempt: number,
  by: Requester | undefined,
): readonly OutgoingEvent[] {
  const data = { sessionId, turnId: turn.turnId, attempt, promptLength: turn.prompt.length };
  return [event('audit.session', 'turn.started', { ...origin(tenant, by), data })];
}

/** What it learns when a turn has ended: that it did, and what the model counted. */
export function endedEvents(input: FinishInput, timings: Timings): readonly OutgoingEvent[] {
  const { tenant, sessionId, status, error, generation, turn, by } = input;
  const common = origin(tenant, by);
  const { turnId } = turn;
  const recall = generation?.recall;
  const ended = event('audit.session', 'turn.ended', {
    ...common,
    data: { sessionId, turnId, status, error, ...(recall && { recall }) },
  });
  const usage = usageData(input, timings, common.actor);
  return usage === undefined ? [ended] : [ended, event('usage.tokens', 'tokens.used', { ...common, data: usage })];
}

/** What a turn used; undefined for one that was cancelled before its generation began. */
function usageData(input: FinishInput, timings: Timings, actor: Actor): UsageData | undefined {
  const { sessionId, turn, status, generation, failure, team } = input;
  if (generation === null && status === 'cancelled') return undefined;
  const { promptTokens, completionTokens } = generation?.used ?? generation?.usage ?? nothing;
  const { modelName, provider, queue, costMicros, reasons = [] } = generation?.used ?? {};
  return {
    ...{ sessionId, turnId: turn.turnId, subject: actor.id, persona: actor.client, team },
    ...{ promptTokens, completionTokens, modelName, provider, queue, costMicros, reasons: [...reasons] },
    ...{ model: timings.model, firstToken: timings.firstToken, platform: timings.platform, total: timings.total },
    lane: 'interactive',
    outcome: failure === budgetFailure ? 'refused' : status,
  };
}

const nothing = { promptTokens: 0, completionTokens: 0 };

type UsageData = EventData<'usage.tokens', 'tokens.used'>;

/** What it learns when a session takes no more turns. */
export function closedEvents({ tenant, sessionId, reason, by }: EndInput): readonly OutgoingEvent[] {
  const content = { ...origin(tenant, reason === 'idle' ? undefined : by), data: { sessionId, reason } };
  return [event('audit.session', 'session.closed', content), event('session.lifecycle', 'session.closed', content)];
}
