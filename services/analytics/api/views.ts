/** Columns by the name that a request may give them. */
const columns = {
  tenant: 'tenant',
  persona: 'persona',
  capsule: 'capsule',
  team: 'team',
  subject: 'subject',
  provider: 'provider',
  model: 'model_name',
  lane: 'lane',
  service: 'service',
  route: 'route',
  rule: 'rule',
  capability: 'capability',
  source: 'source',
  message: 'message',
} as const;

/** What rows can be grouped by. */
export type Grouping = keyof typeof columns;

/** What each kind of report can be grouped by. */
export const groupings = {
  latencies: ['tenant', 'persona', 'capsule', 'team', 'provider', 'model', 'lane'],
  consumption: ['tenant', 'persona', 'capsule', 'team', 'subject', 'provider', 'model', 'lane'],
  verdicts: ['tenant', 'service', 'route', 'rule', 'capability'],
  errors: ['tenant', 'source', 'service', 'route', 'message'],
} as const satisfies Readonly<Record<string, readonly [Grouping, ...Grouping[]]>>;

/** The column of a grouping; everything in one group where there is none. */
export const columnOf = (grouping: Grouping | undefined): string => (grouping === undefined ? "''" : columns[grouping]);
