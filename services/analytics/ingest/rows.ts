import type { EventEnvelope, EventOf } from '@somagent/events';
import type { Row } from '../warehouse/warehouse.ts';

/** Topics that end in ClickHouse, and the table of each. */
export const tableOfTopic = {
  'usage.tokens': 'usage',
  'audit.session': 'session_event',
  'verdict.decisions': 'verdict',
  'session.lifecycle': 'lifecycle',
} as const;

/** A topic that ends in ClickHouse. */
export type IngestedTopic = keyof typeof tableOfTopic;

/** The topics that are read. */
export const ingestedTopics = Object.keys(tableOfTopic) as readonly IngestedTopic[];

/** ISO 8601 in UTC as ClickHouse's quick reader of times takes it. */
const timeOf = (iso: string) => iso.slice(0, 23).replace('T', ' ');

const common = ({ id, type, version, time, tenant, actor, requestId }: EventEnvelope): Row => ({
  event_id: id,
  tenant: tenant ?? '',
  time: timeOf(time),
  type,
  version,
  actor_kind: actor.kind,
  actor: actor.id,
  request_id: requestId ?? '',
});

function usageRow({ data }: EventOf<'usage.tokens'>): Row {
  return {
    session_id: data.sessionId,
    turn_id: data.turnId,
    subject: data.subject,
    prompt_tokens: data.promptTokens,
    completion_tokens: data.completionTokens,
    cost_micros: data.costMicros ?? 0,
    model_name: data.modelName ?? '',
    provider: data.provider ?? '',
    persona: data.persona ?? '',
    capsule: data.capsule ?? '',
    team: data.team ?? '',
    lane: data.lane ?? '',
    outcome: data.outcome ?? '',
    reasons: data.reasons ?? [],
    model_ms: data.model,
    queue_ms: data.queue ?? null,
    first_token_ms: data.firstToken ?? null,
    platform_ms: data.platform ?? null,
    total_ms: data.total ?? null,
  };
}

/** What a type lacks keeps the default of its column. */
function sessionRow(event: EventOf<'audit.session'>): Row {
  const { type, data } = event;
  const session_id = data.sessionId;
  switch (type) {
    case 'session.opened':
      return { session_id, persona: data.persona ?? '' };
    case 'turn.started':
      return { session_id, turn_id: data.turnId, attempt: data.attempt, prompt_length: data.promptLength };
    case 'turn.ended':
      return { session_id, turn_id: data.turnId, status: data.status, error: data.error ?? '' };
    case 'session.closed':
      return { session_id, reason: data.reason };
  }
}

/** Without `input`: what the policy saw is personal and stays in the audit log. */
function verdictRow({ data }: EventOf<'verdict.decisions'>): Row {
  return {
    service: data.service,
    route: data.route,
    method: data.method ?? '',
    capability: data.capability ?? '',
    resource_type: data.resource?.type ?? '',
    allow: data.allow,
    rule: data.rule,
    reasons: data.reasons,
    revision: data.revision ?? '',
    latency_us: data.latencyUs,
    status: data.status,
  };
}

function lifecycleRow({ type, data }: EventOf<'session.lifecycle'>): Row {
  return type === 'session.opened'
    ? { session_id: data.sessionId, owner: data.owner, teams: data.teams }
    : { session_id: data.sessionId, reason: data.reason };
}

const rowOf: { readonly [Topic in IngestedTopic]: (event: EventOf<Topic>) => Row } = {
  'usage.tokens': usageRow,
  'audit.session': sessionRow,
  'verdict.decisions': verdictRow,
  'session.lifecycle': lifecycleRow,
};

/** The row of an event in the table of its topic, without its place in Kafka. */
export function eventRow<Topic extends IngestedTopic>(topic: Topic, event: EventOf<Topic>): Row {
  return { ...common(event), ...rowOf[topic](event) };
}
