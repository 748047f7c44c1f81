import { z } from 'zod';
import { eventTypes, findContract, subjectOf } from './contracts.ts';
import { envelopeOf } from './envelope.ts';
import { type TopicName, topicNames } from './topics.ts';

/** A JSON Schema, draft-07. */
export type JsonSchema = Readonly<Record<string, unknown>>;

/** The newest schema of a type, as the code has it. */
export interface CurrentSchema {
  readonly subject: string;
  readonly version: number;
  readonly schema: JsonSchema;
}

function currentSchema(topic: TopicName, type: string): CurrentSchema {
  const contract = findContract(topic, type);
  if (contract === undefined) throw new Error(`topic ${topic} has no type ${type}`);
  const subject = subjectOf(topic, type);
  const { $schema, ...schema } = z.toJSONSchema(envelopeOf(type, contract.data), { target: 'draft-7', io: 'output' });
  return { subject, version: contract.version, schema: { $schema, title: subject, ...schema } };
}

/** The newest schema of every type of every topic. */
export const currentSchemas = (): readonly CurrentSchema[] =>
  topicNames.flatMap((topic) => eventTypes(topic).map((type) => currentSchema(topic, type)));
