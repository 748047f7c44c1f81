import type { z } from 'zod';
import type { EventContract } from './contract.ts';
import { auditControl } from './contracts/audit-control.ts';
import { auditIdentity } from './contracts/audit-identity.ts';
import { auditMemory } from './contracts/audit-memory.ts';
import { auditSession } from './contracts/audit-session.ts';
import { identityChanges } from './contracts/identity-changes.ts';
import { sessionLifecycle } from './contracts/session-lifecycle.ts';
import { usageTokens } from './contracts/usage-tokens.ts';
import { verdictDecisions } from './contracts/verdict-decisions.ts';
import type { TopicName } from './topics.ts';

/** Every event of the platform, by topic and type. */
export const contracts = {
  'audit.identity': auditIdentity,
  'audit.session': auditSession,
  'audit.control': auditControl,
  'audit.memory': auditMemory,
  'verdict.decisions': verdictDecisions,
  'usage.tokens': usageTokens,
  'session.lifecycle': sessionLifecycle,
  'identity.changes': identityChanges,
} satisfies Readonly<Record<TopicName, Readonly<Record<string, unknown>>>>;

/** The types of events of a topic. */
export type EventType<Topic extends TopicName> = keyof (typeof contracts)[Topic] & string;

/** What an event of that type carries. */
export type EventData<Topic extends TopicName, Type extends EventType<Topic>> =
  (typeof contracts)[Topic][Type] extends EventContract<infer Data> ? z.output<Data> : never;

/** The types of events of a topic, as a list. */
export const eventTypes = <Topic extends TopicName>(topic: Topic): readonly EventType<Topic>[] =>
  Object.keys(contracts[topic]) as EventType<Topic>[];

/** The contract of a type, or undefined when the topic has none of that name. */
export const findContract = (topic: TopicName, type: string): EventContract | undefined =>
  Object.hasOwn(contracts[topic], type)
    ? (contracts[topic] as unknown as Readonly<Record<string, EventContract>>)[type]
    : undefined;

/** The name under which the registry keeps the schemas of a type. */
export const subjectOf = (topic: TopicName, type: string): string => `${topic}-${type}`;
