import type { z } from 'zod';

/** What an event of one type carries. The type is the name under which the contract stands in its topic. */
export interface EventContract<Data extends z.ZodObject = z.ZodObject> {
  readonly description: string;
  /** Number of the newest schema in `schemas.json`; raised by `node services/events/main.ts`. */
  readonly version: number;
  readonly data: Data;
  /** The part of the message key that follows the tenant. */
  aggregate(data: z.output<Data>): string;
}

/** Declares a contract; it only lets TypeScript infer `Data`. */
export const contract = <Data extends z.ZodObject>(declared: EventContract<Data>): EventContract<Data> => declared;
