export type { EventContract } from './contract.ts';
export { contracts, type EventData, type EventType, eventTypes, subjectOf } from './contracts.ts';
export type { Actor, EventEnvelope } from './envelope.ts';
export { type EventContent, EventError, type EventOf, event, type OutgoingEvent, readEvent } from './event.ts';
export { type KafkaPlan, planOf } from './plan.ts';
export { type ServiceName, services, type Topic, type TopicName, topicNames, topics } from './topics.ts';
