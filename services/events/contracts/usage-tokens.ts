import { z } from 'zod';
import { contract } from '../contract.ts';

/** Events of the topic `usage.tokens`. */
export const usageTokens = {
  'tokens.used': contract({
    version: 1,
    description: 'The model worked for a turn; counted once per turn, also when the turn was cancelled',
    data: z.object({
      sessionId: z.uuid(),
      turnId: z.uuid(),
      subject: z.string().min(1),
      promptTokens: z.int().min(0),
      completionTokens: z.int().min(0),
      /** Time of the model, milliseconds. */
      model: z.number().min(0),
    }),
    aggregate: ({ sessionId }) => sessionId,
  }),
};
