import { z } from 'zod';
import { contract } from '../contract.ts';

const name = z.string().min(1).nullish();
const milliseconds = z.number().min(0).nullish();

/** Events of the topic `usage.tokens`. */
export const usageTokens = {
  'tokens.used': contract({
    version: 2,
    description:
      'A model worked for a turn or a request; counted once for each, also when it was cancelled, failed or refused',
    data: z.object({
      /** Null where a request belongs to no session, as one to `/v1/chat/completions`. */
      sessionId: z.uuid().nullable(),
      turnId: z.uuid().nullable(),
      subject: z.string().min(1),
      promptTokens: z.int().min(0),
      completionTokens: z.int().min(0),
      /** Time of the model, milliseconds. */
      model: z.number().min(0),
      modelName: name,
      provider: name,
      persona: name,
      capsule: name,
      team: name,
      lane: z.enum(['interactive', 'batch']).nullish(),
      /** Time in the queue of the model's server, milliseconds. */
      queue: milliseconds,
      /** Time until the first token, milliseconds. */
      firstToken: milliseconds,
      /** Time of the platform itself, milliseconds. */
      platform: milliseconds,
      /** Time of the whole, milliseconds. */
      total: milliseconds,
      /** Whole millionths of a US dollar. */
      costMicros: z.int().min(0).nullish(),
      outcome: z.enum(['completed', 'cancelled', 'failed', 'refused']).nullish(),
      /** Why another provider than the first of the chain answered. */
      reasons: z.array(z.string()).nullish(),
    }),
    aggregate: ({ sessionId, subject }) => sessionId ?? subject,
  }),
};
