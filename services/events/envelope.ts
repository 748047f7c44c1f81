import { z } from 'zod';

/** Who acted. */
export const actor = z.object({
  kind: z.enum(['user', 'service-account', 'api-key', 'workload', 'system']),
  id: z.string().min(1),
  /** The client of the token, when there was one. */
  client: z.string().min(1).nullable(),
});

/** Who acted. */
export type Actor = z.output<typeof actor>;

/** The schema of an event: the envelope around the data of its type. */
export const envelopeOf = <Type extends string, Data extends z.ZodObject>(type: Type, data: Data) =>
  z.object({
    id: z.uuid(),
    type: z.literal(type),
    version: z.int().min(1),
    time: z.iso.datetime({ precision: 3 }),
    tenant: z.string().min(1).nullable(),
    actor,
    requestId: z.string().min(1).nullable(),
    data,
  });

/** An event as it stands in Kafka. */
export interface EventEnvelope<Type extends string = string, Data = unknown> {
  /** UUID version 7. It is the key by which consumers recognize an event that comes again. */
  readonly id: string;
  /** What happened: `session.opened`. */
  readonly type: Type;
  /** Version of the type's schema. */
  readonly version: number;
  /** When it happened: ISO 8601 in UTC, milliseconds. */
  readonly time: string;
  /** Whom it concerns; null is the platform itself. */
  readonly tenant: string | null;
  readonly actor: Actor;
  /** The request that caused it, when one did. */
  readonly requestId: string | null;
  readonly data: Data;
}
