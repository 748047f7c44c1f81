import { database } from './warehouse.ts';

/** How tables are kept. */
export interface TableLayout {
  /** Name of the cluster whose replicas share the tables; absent where there is one server. */
  readonly cluster?: string | undefined;
}

/** A change of the schema. Every statement can be run again: a step that was killed midway is repeated whole. */
export interface WarehouseMigration {
  readonly name: string;
  statements(layout: TableLayout): readonly string[];
}

/** Rows are kept this long, days; a day's partition goes when all of it is older. */
export const retentionDays = 30;

/** Blocks whose tokens a table remembers: an hour and more of the busiest topic. */
const rememberedBlocks = 10_000;

/** Tables of events, one per topic, and what could not be read. Each has `partition` and `offset` of Kafka. */
export const eventTables = ['usage', 'session_event', 'verdict', 'lifecycle', 'dead_letter'] as const;

const origin = `
  partition UInt32,
  offset UInt64,
  event_id UUID,
  tenant LowCardinality(String),
  time DateTime64(3, 'UTC'),
  type LowCardinality(String),
  version UInt32,
  actor_kind LowCardinality(String),
  actor String,
  request_id String,
  ingested DateTime64(3, 'UTC') default now64(3)`;

function engine({ cluster }: TableLayout, kind: '' | 'Replacing', argument = ''): string {
  return cluster === undefined
    ? `engine = ${kind}MergeTree(${argument})`
    : `engine = Replicated${kind}MergeTree(${argument})`;
}

/** What a table remembers of tokens, and that a block is on disk before it is acknowledged. */
function tableSettings({ cluster }: TableLayout, more: readonly string[] = []): string {
  const window =
    cluster === undefined
      ? [`non_replicated_deduplication_window = ${rememberedBlocks}`]
      : [`replicated_deduplication_window = ${rememberedBlocks}`, 'replicated_deduplication_window_seconds = 604800'];
  return `settings ${[...window, 'fsync_after_insert = 1', 'fsync_part_directory = 1', ...more].join(', ')}`;
}

const onCluster = ({ cluster }: TableLayout) => (cluster === undefined ? '' : ` on cluster \`${cluster}\``);

function eventTable(layout: TableLayout, name: string, columns: string, order = 'tenant, time'): string {
  return `create table if not exists ${database}.${name}${onCluster(layout)} (${columns})
    ${engine(layout, '')}
    partition by toDate(time)
    order by (${order})
    ttl toDateTime(time) + toIntervalDay(${retentionDays + 1})
    ${tableSettings(layout, ['ttl_only_drop_parts = 1'])}`;
}

const tables: WarehouseMigration = {
  name: '0001-tables',
  statements: (layout) => [
    `create table if not exists ${database}.cut${onCluster(layout)} (
      topic LowCardinality(String),
      partition UInt32,
      first UInt64,
      last UInt64,
      aside_offsets Array(UInt64),
      aside_reasons Array(String),
      writer String,
      at DateTime64(6, 'UTC') default now64(6)
    ) ${engine(layout, '')} partition by toDate(at) order by (topic, partition, first) ${tableSettings(layout)}`,
    eventTable(
      layout,
      'usage',
      `${origin},
      session_id Nullable(UUID), turn_id Nullable(UUID), subject String,
      prompt_tokens UInt64, completion_tokens UInt64, cost_micros UInt64,
      model_name LowCardinality(String), provider LowCardinality(String), persona LowCardinality(String),
      capsule LowCardinality(String), team LowCardinality(String), lane LowCardinality(String),
      outcome LowCardinality(String), reasons Array(String),
      model_ms Float64, queue_ms Nullable(Float64), first_token_ms Nullable(Float64),
      platform_ms Nullable(Float64), total_ms Nullable(Float64)`,
    ),
    eventTable(
      layout,
      'session_event',
      `${origin},
      session_id UUID, turn_id Nullable(UUID), persona LowCardinality(String), attempt UInt32, prompt_length UInt64,
      status LowCardinality(String), error String, reason String`,
    ),
    eventTable(
      layout,
      'verdict',
      `${origin},
      service LowCardinality(String), route LowCardinality(String), method LowCardinality(String),
      capability LowCardinality(String), resource_type LowCardinality(String), allow Bool,
      rule LowCardinality(String), reasons Array(String), revision LowCardinality(String), latency_us Float64,
      status Nullable(UInt16)`,
    ),
    eventTable(layout, 'lifecycle', `${origin}, session_id UUID, owner String, teams Array(String), reason String`),
    eventTable(
      layout,
      'dead_letter',
      `topic LowCardinality(String), partition UInt32, offset UInt64, tenant LowCardinality(String),
      time DateTime64(3, 'UTC') default now64(3), reason String, key String, value String`,
      'topic, time',
    ),
  ],
};

const forecasts: WarehouseMigration = {
  name: '0002-forecasts',
  statements: (layout) => [
    `create table if not exists ${database}.forecast${onCluster(layout)} (
      tenant LowCardinality(String), hour DateTime('UTC'), expected Float64, low Float64, high Float64,
      accuracy Nullable(Float64), made DateTime64(3, 'UTC')
    ) ${engine(layout, 'Replacing', 'made')} partition by toDate(hour) order by (tenant, hour)
    ttl hour + toIntervalDay(${retentionDays + 1}) settings ttl_only_drop_parts = 1`,
    `create table if not exists ${database}.anomaly${onCluster(layout)} (
      tenant LowCardinality(String), hour DateTime('UTC'), tokens Float64, expected Float64, score Float64,
      made DateTime64(3, 'UTC')
    ) ${engine(layout, 'Replacing', 'made')} partition by toDate(hour) order by (tenant, hour)
    ttl hour + toIntervalDay(${retentionDays + 1}) settings ttl_only_drop_parts = 1`,
  ],
};

const view = (layout: TableLayout, name: string, select: string) =>
  `create or replace view ${database}.${name}${onCluster(layout)} as ${select}`;

const views: WarehouseMigration = {
  name: '0003-views',
  statements: (layout) => [
    view(
      layout,
      'session_latency',
      `select tenant, time, session_id, turn_id, persona, capsule, team, lane, provider, model_name,
        platform_ms, queue_ms, first_token_ms, model_ms, total_ms
      from ${database}.usage where outcome in ('', 'completed')`,
    ),
    view(
      layout,
      'slm_latency',
      // Before events named a provider, the small model was the only one.
      `select * from ${database}.session_latency where provider in ('', 'slm')`,
    ),
    view(
      layout,
      'consumption',
      `select tenant, time, persona, capsule, team, subject, provider, model_name, lane,
        prompt_tokens, completion_tokens, cost_micros
      from ${database}.usage`,
    ),
    view(
      layout,
      'decision',
      `select tenant, time, service, route, capability, rule, allow, status, latency_us from ${database}.verdict`,
    ),
    view(
      layout,
      'error',
      `select tenant, time, 'turn' as source, 'orchestrator' as service, '' as route, error as message
      from ${database}.session_event where type = 'turn.ended' and status = 'failed'
      union all
      select tenant, time, 'request' as source, service, route, concat('HTTP ', toString(assumeNotNull(status))) as message
      from ${database}.verdict where status >= 500
      union all
      select tenant, time, 'model' as source, provider as service, model_name as route,
        arrayStringConcat(reasons, '; ') as message
      from ${database}.usage where outcome = 'failed' and session_id is null`,
    ),
    view(
      layout,
      'turn_outcome',
      `select tenant, time, session_id, turn_id, status from ${database}.session_event where type = 'turn.ended'`,
    ),
  ],
};

/** Every migration, oldest first; a released one never changes. */
export const migrations: readonly WarehouseMigration[] = [tables, forecasts, views];
