import type { TopicName } from '@somagent/events';
import { incompatibilities } from '@somagent/events/compatibility.ts';
import { findContract, subjectOf } from '@somagent/events/contracts.ts';
import { envelopeOf } from '@somagent/events/envelope.ts';
import type { JsonSchema } from '@somagent/events/json-schema.ts';
import { messageOf } from '@somagent/kit';
import { z } from 'zod';

/** Where schemas of versions are found that this service does not know. */
export interface SchemaSource {
  /**
   * @returns the schema, or undefined when there is no such version
   * @throws Error when the source is away: nothing can be said then.
   */
  schema(subject: string, version: number): Promise<JsonSchema | undefined>;
}

/** The registry can't say what a version looks like; the messages wait. */
export class SchemasAway extends Error {
  constructor(subject: string, version: number, cause: unknown) {
    super(
      `version ${version} of ${subject} is newer than this service, and the schema registry can't be asked: ` +
        `${messageOf(cause)}. Look at the schema registry; the events wait in Kafka`,
      { cause },
    );
    this.name = 'SchemasAway';
  }
}

/** Decides whether what a newer producer writes can be read. */
export class Evolution {
  readonly #source: SchemaSource;
  readonly #judged = new Map<string, string | null>();

  constructor(source: SchemaSource) {
    this.#source = source;
  }

  /**
   * @returns why events of this version can't be read, or null when they can; a promise only where the registry has to
   * be asked, because nearly every event is of a version that is known
   * @throws SchemasAway in the promise
   */
  judge(topic: TopicName, type: string, version: number): string | null | Promise<string | null> {
    const contract = findContract(topic, type);
    if (contract === undefined) return `type ${type} of ${topic} is unknown here`;
    if (version <= contract.version) return null;
    const subject = subjectOf(topic, type);
    const judged = this.#judged.get(`${subject}:${version}`);
    return judged === undefined ? this.#ask(subject, version, readerSchema(type, contract.data)) : judged;
  }

  async #ask(subject: string, version: number, reader: JsonSchema): Promise<string | null> {
    const written = await this.#source.schema(subject, version).catch((cause: unknown) => {
      throw new SchemasAway(subject, version, cause);
    });
    // What is not registered yet may be in a moment: it is not remembered.
    if (written === undefined) return `version ${version} of ${subject} is not in the schema registry`;
    const problems = incompatibilities(withoutVersion(written), openSchema(reader));
    const answer = problems.length === 0 ? null : `version ${version} of ${subject}: ${problems.join('; ')}`;
    this.#judged.set(`${subject}:${version}`, answer);
    return answer;
  }
}

const readerSchema = (type: string, data: z.ZodObject): JsonSchema =>
  z.toJSONSchema(envelopeOf(type, data), { target: 'draft-7', io: 'output' }) as JsonSchema;

/** Annotations of the whole differ by version and mean nothing. */
const withoutVersion = ({ $schema: _schema, title: _title, ...schema }: JsonSchema): JsonSchema => schema;

/** The same schema for a reader that leaves out what it does not know. */
function openSchema(schema: unknown): JsonSchema {
  return opened(withoutVersion(schema as JsonSchema)) as JsonSchema;
}

function opened(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(opened);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([key, inner]) => key !== 'additionalProperties' || inner !== false);
  return Object.fromEntries(entries.map(([key, inner]) => [key, opened(inner)]));
}
