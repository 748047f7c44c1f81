import { z } from 'zod';
import { contract } from '../contract.ts';

/** Events of the topic `verdict.decisions`. */
export const verdictDecisions = {
  'verdict.decided': contract({
    version: 1,
    description: 'A request was allowed or denied; `input` is what the policy saw, so that it can be asked again',
    data: z.object({
      requestId: z.string().min(1),
      service: z.string().min(1),
      /** Name of the declared route, or of the action where there is no route. */
      route: z.string().min(1),
      method: z.string().nullable(),
      /** Template of the path, `/v1/sessions/{id}`: never the path itself. */
      path: z.string().nullable(),
      capability: z.string().nullable(),
      resource: z.object({ type: z.string(), id: z.string().nullable() }).nullable(),
      allow: z.boolean(),
      rule: z.string().min(1),
      reasons: z.array(z.string()),
      /** Revision of the policy bundle; null when the request was refused before policy was asked. */
      revision: z.string().nullable(),
      latencyUs: z.number().min(0),
      /** Status of the HTTP answer; null where there is none. */
      status: z.int().min(100).max(599).nullable(),
      input: z.record(z.string(), z.unknown()).nullable(),
    }),
    aggregate: ({ requestId }) => requestId,
  }),
};
