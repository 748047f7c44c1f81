import type { World } from './world.ts';

/** One request, as it goes over the wire: nothing is normalized, added or left out but what is said here. */
export interface WireRequest {
  /** @default 'GET' */
  readonly method?: string;
  /** The request target, as it is. @default '/v1/sessions' */
  readonly target?: string;
  /** In this order, duplicates and all. `Host` and `Connection: close` are sent first unless `bare`. */
  readonly headers?: readonly (readonly [name: string, value: string])[];
  readonly body?: string | Uint8Array;
  /** The whole request instead of all of the above. */
  readonly bytes?: string;
  /** Neither `Host` nor `Connection` nor `Content-Length` is added. @default false */
  readonly bare?: boolean;
}

/** An attack and the exact answer that it must get. */
export interface Attack {
  readonly name: string;
  readonly status: number;
  /** Last part of the problem's type; null where the HTTP parser refuses, which speaks no JSON. */
  readonly problem: string | null;
  /** The answer has the form of OpenAI's API, and `problem` is its code. @default false */
  readonly openAi?: boolean;
  readonly request: (world: World) => WireRequest | Promise<WireRequest>;
}

/** A header with a token. */
export const bearer = (token: string): readonly [string, string] => ['Authorization', `Bearer ${token}`];

/** A header with the good token. */
export const asAgent = ({ good }: World): readonly [string, string] => bearer(good);

/** The same attack by tokens of many forms: each is one attack. */
export function byToken(
  status: number,
  problem: string,
  tokens: Readonly<Record<string, (world: World) => string>>,
): Attack[] {
  return Object.entries(tokens).map(([name, token]) => ({
    name,
    status,
    problem,
    request: (world) => ({ headers: [bearer(token(world))] }),
  }));
}

/** The same kind of attack by requests of many forms. */
export function byRequest(
  status: number,
  problem: string | null,
  requests: Readonly<Record<string, (world: World) => WireRequest>>,
): Attack[] {
  return Object.entries(requests).map(([name, request]) => ({ name, status, problem, request }));
}
