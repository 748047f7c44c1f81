import { z } from 'zod';

const name = z.string().regex(/^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/, 'must be a-z, 0-9 and -');

/** What the Job `object-store` reads: who exists, and who may do what with which bucket. */
export const objectStorePlan = z.strictObject({
  /** Access keys; the secret key of each is the file `password` below `USERS_DIR/<user>`. */
  users: z.array(name),
  buckets: z.array(
    z.strictObject({
      name,
      /** Users that may read objects and list them. */
      readers: z.array(name),
      /** Users that may also write and delete them. */
      writers: z.array(name),
    }),
  ),
});

/** Values of {@link objectStorePlan}. */
export type ObjectStorePlan = z.output<typeof objectStorePlan>;
