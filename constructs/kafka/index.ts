export type { KafkaDeclaration, KafkaGrant, KafkaTopic } from './declaration.ts';
export { Kafka, type KafkaProps, type KafkaRenderer } from './kafka.ts';
