import { randomUUID } from 'node:crypto';
import { OpenAPIHono } from '@hono/zod-openapi';
import { type Logger, messageOf } from '@somagent/kit';
import type { MiddlewareHandler } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { HTTPException } from 'hono/http-exception';
import { secureHeaders } from 'hono/secure-headers';
import type { JWTVerifyGetKey } from 'jose';
import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import { authenticate, type TokenRules } from './authentication.ts';
import type { GatewayEnv, Handlers } from './handlers.ts';
import { Problem } from './problem.ts';
import { routes } from './routes.ts';

/** What the application needs. */
export interface AppOptions {
  readonly log: Logger;
  readonly keys: JWTVerifyGetKey;
  readonly rules: TokenRules;
  /** Requests of one subject of a tenant in a minute, on this pod. */
  readonly rateLimit: number;
  readonly handlers: Handlers;
}

/** Largest request body, bytes. */
export const bodyLimitBytes = 64 * 1024;

type Middleware = MiddlewareHandler<GatewayEnv>;

/** The HTTP application: middleware in the order in which a request meets it, then the declared routes. */
export function createApp(options: AppOptions): OpenAPIHono<GatewayEnv> {
  const app = new OpenAPIHono<GatewayEnv>({
    defaultHook: (result) => {
      if (!result.success) throw new Problem('invalid-request', describe(result.error.issues));
    },
  });
  app.onError((error, context) => {
    const problem = problemOf(error);
    if (problem.type === 'internal')
      options.log.error({ err: error, requestId: context.get('requestId') }, 'a request failed');
    return problem.toResponse(context.get('requestId'));
  });
  app.notFound((context) =>
    new Problem('not-found', `there is no ${context.req.method} ${context.req.path}`).toResponse(
      context.get('requestId'),
    ),
  );
  app.use(
    accessLog(options.log),
    secureHeaders(),
    requireToken(options),
    limitRate(options.rateLimit),
    requireJson,
    bodyLimit({ maxSize: bodyLimitBytes, onError: refuseBody }),
  );
  register(app, options.handlers);
  return app;
}

/** Connects each declaration with its handler; a declaration without one does not compile. */
function register(app: OpenAPIHono<GatewayEnv>, handlers: Handlers): void {
  app.openapi(routes.createSession, handlers.createSession);
  app.openapi(routes.listSessions, handlers.listSessions);
  app.openapi(routes.getSession, handlers.getSession);
  app.openapi(routes.createTurn, handlers.createTurn);
  app.openapi(routes.streamEvents, handlers.streamEvents);
  app.openapi(routes.cancelTurn, handlers.cancelTurn);
  app.openapi(routes.closeSession, handlers.closeSession);
  app.openAPIRegistry.registerComponent('securitySchemes', 'bearer', {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'JWT',
  });
  app.openapi(routes.getOpenApi, (context) => {
    const document = app.getOpenAPI31Document({ openapi: '3.1.0', info: { title: 'SomaGent gateway', version: '1' } });
    // Through JSON, because the typed document has no index signature.
    return context.json(JSON.parse(JSON.stringify(document)), 200);
  });
}

function accessLog(log: Logger): Middleware {
  return async (context, next) => {
    const receivedAt = Date.now();
    const requestId = randomUUID();
    context.set('receivedAt', receivedAt);
    context.set('requestId', requestId);
    await next();
    context.header('x-request-id', requestId);
    const { method, path } = context.req;
    const caller = context.get('caller');
    const who = caller && { tenant: caller.tenant, subject: caller.subject, client: caller.client };
    log.info({ requestId, method, path, status: context.res.status, ms: Date.now() - receivedAt, ...who }, 'request');
  };
}

function requireToken({ keys, rules }: AppOptions): Middleware {
  return async (context, next) => {
    context.set('caller', await authenticate(context.req.header('authorization'), keys, rules));
    await next();
  };
}

function limitRate(limit: number): Middleware {
  const limiter = new RateLimiterMemory({ points: limit, duration: 60 });
  return async (context, next) => {
    const { tenant, subject } = context.get('caller');
    try {
      await limiter.consume(`${tenant}/${subject}`);
    } catch (refusal) {
      if (!(refusal instanceof RateLimiterRes)) throw refusal;
      const seconds = Math.ceil(refusal.msBeforeNext / 1000);
      throw new Problem('rate-limited', `at most ${limit} requests a minute: wait ${seconds} s`, {
        'retry-after': String(seconds),
      });
    }
    await next();
  };
}

const requireJson: Middleware = async (context, next) => {
  const { req } = context;
  const hasBody = req.header('transfer-encoding') !== undefined || Number(req.header('content-length') ?? 0) > 0;
  const type = req.header('content-type')?.split(';')[0]?.trim().toLowerCase();
  if (hasBody && type !== 'application/json') {
    throw new Problem('media-type', `content-type is ${type ?? 'not set'}: send application/json`);
  }
  await next();
};

function refuseBody(): never {
  throw new Problem('body-too-large', `a request has at most ${bodyLimitBytes} bytes`);
}

const describe = (issues: readonly { readonly path: readonly PropertyKey[]; readonly message: string }[]): string =>
  issues.map(({ path, message }) => (path.length === 0 ? message : `${path.join('.')}: ${message}`)).join('; ');

function problemOf(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof HTTPException && error.status < 500) return new Problem('invalid-request', messageOf(error));
  if (isConnectionLoss(error)) {
    return new Problem('unavailable', 'the database does not answer: try again', { 'retry-after': '2' });
  }
  return new Problem('internal', 'the request could not be handled: report the request id');
}

/** Postgres away, or on its way from one primary to the next (classes 08 and 57 of its error codes). */
function isConnectionLoss(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = 'code' in error ? String(error.code) : '';
  return /^(08|57P|ECONN|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EPIPE)/.test(code) || /timeout|terminated/i.test(error.message);
}
