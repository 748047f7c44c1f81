import type { EventEnvelope, EventOf } from '@somagent/events';
import type { eventTables } from '../warehouse/migrations.ts';
import type { Columns } from '../warehouse/native.ts';
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

const origin = {
  partition: 'UInt32',
  offset: 'UInt64',
  event_id: 'UUID',
  tenant: 'LowCardinality(String)',
  time: "DateTime64(3, 'UTC')",
  type: 'LowCardinality(String)',
  version: 'UInt32',
  actor_kind: 'LowCardinality(String)',
  actor: 'String',
  request_id: 'String',
} as const satisfies Columns;

/** What is sent of a row of each table: types are those of the table, so that ClickHouse has nothing to convert. */
export const columnsOf = {
  usage: {
    ...origin,
    session_id: 'Nullable(UUID)',
    turn_id: 'Nullable(UUID)',
    subject: 'String',
    prompt_tokens: 'UInt64',
    completion_tokens: 'UInt64',
    cost_micros: 'UInt64',
    model_name: 'LowCardinality(String)',
    provider: 'LowCardinality(String)',
    persona: 'LowCardinality(String)',
    capsule: 'LowCardinality(String)',
    team: 'LowCardinality(String)',
    lane: 'LowCardinality(String)',
    outcome: 'LowCardinality(String)',
    reasons: 'Array(String)',
    model_ms: 'Float64',
    queue_ms: 'Nullable(Float64)',
    first_token_ms: 'Nullable(Float64)',
    platform_ms: 'Nullable(Float64)',
    total_ms: 'Nullable(Float64)',
  },
  session_event: {
    ...origin,
    session_id: 'UUID',
    turn_id: 'Nullable(UUID)',
    persona: 'LowCardinality(String)',
    attempt: 'UInt32',
    prompt_length: 'UInt64',
    status: 'LowCardinality(String)',
    error: 'String',
    reason: 'String',
  },
  verdict: {
    ...origin,
    service: 'LowCardinality(String)',
    route: 'LowCardinality(String)',
    method: 'LowCardinality(String)',
    capability: 'LowCardinality(String)',
    resource_type: 'LowCardinality(String)',
    allow: 'Bool',
    rule: 'LowCardinality(String)',
    reasons: 'Array(String)',
    revision: 'LowCardinality(String)',
    latency_us: 'Float64',
    status: 'Nullable(UInt16)',
  },
  lifecycle: { ...origin, session_id: 'UUID', owner: 'String', teams: 'Array(String)', reason: 'String' },
  dead_letter: {
    topic: 'LowCardinality(String)',
    partition: 'UInt32',
    offset: 'UInt64',
    tenant: 'LowCardinality(String)',
    reason: 'String',
    key: 'String',
    value: 'String',
  },
} as const satisfies Readonly<Record<(typeof eventTables)[number], Columns>>;

type Own<Table extends keyof typeof columnsOf> = Readonly<
  Record<Exclude<keyof (typeof columnsOf)[Table], keyof typeof origin>, unknown>
>;

const common = ({ id, type, version, time, tenant, actor, requestId }: EventEnvelope): Row => ({
  event_id: id,
  tenant: tenant ?? '',
  time: Date.parse(time),
  type,
  version,
  actor_kind: actor.kind,
  actor: actor.id,
  request_id: requestId ?? '',
});

function usageRow({ data }: EventOf<'usage.tokens'>): Own<'usage'> {
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

/** What a type lacks is empty. */
const emptySession = { turn_id: null, persona: '', attempt: 0, prompt_length: 0, status: '', error: '', reason: '' };

function sessionRow({ type, data }: EventOf<'audit.session'>): Own<'session_event'> {
  const session_id = data.sessionId;
  switch (type) {
    case 'session.opened':
      return { ...emptySession, session_id, persona: data.persona ?? '' };
    case 'turn.started':
      return {
        ...emptySession,
        session_id,
        turn_id: data.turnId,
        attempt: data.attempt,
        prompt_length: data.promptLength,
      };
    case 'turn.ended':
      return { ...emptySession, session_id, turn_id: data.turnId, status: data.status, error: data.error ?? '' };
    case 'session.closed':
      return { ...emptySession, session_id, reason: data.reason };
  }
}

/** Without `input`: what the policy saw is personal and stays in the audit log. */
function verdictRow({ data }: EventOf<'verdict.decisions'>): Own<'verdict'> {
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

function lifecycleRow({ type, data }: EventOf<'session.lifecycle'>): Own<'lifecycle'> {
  return type === 'session.opened'
    ? { session_id: data.sessionId, owner: data.owner, teams: data.teams, reason: '' }
    : { session_id: data.sessionId, owner: '', teams: [], reason: data.reason };
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
