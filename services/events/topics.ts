/** Services that speak with Kafka. Each is a user of its own; the name is the SCRAM user and the consumer group. */
export const services = [
  'gateway',
  'orchestrator',
  'identity',
  'audit',
  'relations',
  'analytics',
  'memory-gateway',
  'training',
] as const;

/** A service that speaks with Kafka. */
export type ServiceName = (typeof services)[number];

/** A topic and who may use it. Whoever is not named is refused by the brokers. */
export interface Topic {
  readonly description: string;
  readonly partitions: number;
  /** How long an event is kept, days. */
  readonly retentionDays: number;
  readonly producers: readonly ServiceName[];
  /** Each reads as the consumer group of its own name. */
  readonly consumers: readonly ServiceName[];
  /** What follows the tenant in the key: events with the same key keep their order. */
  readonly key: string;
}

const kept = { partitions: 3, retentionDays: 30 } as const;

/** Every topic of the platform. A key is `<tenant>/<key>`, or `platform/<key>` where there is no tenant. */
export const topics = {
  'audit.identity': {
    ...kept,
    description: 'Who was created, changed or removed: tenants, users, service accounts, API keys',
    producers: ['identity'],
    consumers: ['audit'],
    key: 'id of what was changed',
  },
  'audit.session': {
    ...kept,
    description: 'What was done in sessions, and by whom',
    producers: ['orchestrator'],
    consumers: ['audit', 'analytics'],
    key: 'id of the session',
  },
  'audit.control': {
    ...kept,
    description: 'Halts, suspensions, revocations, training mode, policy bundles, exports, repairs',
    producers: ['identity', 'orchestrator', 'audit', 'gateway', 'relations', 'analytics', 'memory-gateway', 'training'],
    consumers: ['audit'],
    key: 'what is controlled',
  },
  'audit.memory': {
    ...kept,
    description: 'What was remembered, forgotten and exported, never the text',
    producers: ['memory-gateway'],
    consumers: ['audit'],
    key: 'whose memories they are',
  },
  'verdict.decisions': {
    ...kept,
    description: 'Each verdict of the policy: who, what, on what, allow or deny, by which rule',
    producers: ['gateway', 'orchestrator', 'identity', 'audit', 'relations', 'analytics', 'memory-gateway', 'training'],
    consumers: ['audit', 'analytics'],
    key: 'id of the request',
  },
  'usage.tokens': {
    ...kept,
    description: 'What a turn or a request to a model has consumed',
    producers: ['orchestrator', 'gateway'],
    consumers: ['analytics'],
    key: 'id of the session, or of the subject where there is none',
  },
  'session.lifecycle': {
    ...kept,
    description: 'Sessions that open and close, with their owner',
    producers: ['orchestrator'],
    consumers: ['relations', 'analytics'],
    key: 'id of the session',
  },
  'identity.changes': {
    ...kept,
    description: 'The state of tenants, teams and users after each change',
    producers: ['identity'],
    consumers: ['relations'],
    key: 'kind and id of what was changed',
  },
} as const satisfies Readonly<Record<string, Topic>>;

/** The name of a topic. */
export type TopicName = keyof typeof topics;

/** The names of all topics. */
export const topicNames = Object.keys(topics) as readonly TopicName[];
