import { OpenAPIHono, type RouteConfig, type RouteHandler } from '@hono/zod-openapi';
import type { Logger } from '@somagent/kit';
import type { Context, MiddlewareHandler } from 'hono';
import { secureHeaders } from 'hono/secure-headers';
import { openApiDocument } from './document.ts';
import type { GovernedEnv } from './exchange.ts';
import { admission, decided, type GovernanceOptions } from './govern.ts';
import { Problem, problemOf } from './problem.ts';
import { endSpan, noteProblem } from './request-span.ts';
import type { DeclaredRoute, openApiRoute } from './route.ts';
import { type ListedRoute, listRoutes } from './route-list.ts';
import { refusalRecord } from './verdict.ts';

/** The routes of a service, by the name of their operation. Each service describes itself. */
export type DeclaredRoutes = Readonly<Record<string, DeclaredRoute>> & { readonly getOpenApi: typeof openApiRoute };

/** A handler for each declared route, no more and no less. */
export type Handlers<Routes> = {
  readonly [Name in Exclude<keyof Routes, 'getOpenApi'>]: Routes[Name] extends RouteConfig
    ? RouteHandler<Routes[Name], GovernedEnv>
    : never;
};

/** What a governed application is made of. */
export interface GovernedAppOptions<Routes extends DeclaredRoutes> extends GovernanceOptions {
  /** Title of the API in its description. */
  readonly title: string;
  readonly routes: Routes;
  readonly handlers: Handlers<Routes>;
  readonly log: Logger;
}

/** An application in which nothing answers that is not declared, allowed and recorded. */
export interface GovernedApp {
  /** Name of its service. */
  readonly service: string;
  readonly fetch: (request: Request, env?: object) => Response | Promise<Response>;
  /** What the router knows, declared or not: the document `/routes` of the health port. */
  readonly routes: () => readonly ListedRoute[];
  readonly hono: OpenAPIHono<GovernedEnv>;
}

/**
 * Makes the application. The order in which a request meets what governs it: request id and access log, secure headers,
 * authentication, revocation and suspension, limits, the declared route, body rules, schema, relation, policy, verdict
 * recorded, handler. A refusal on the way is a recorded verdict too.
 * @throws Error when something that it needs is missing.
 */
export function createGovernedApp<const Routes extends DeclaredRoutes>(
  options: GovernedAppOptions<Routes>,
): GovernedApp {
  requireComplete(options);
  const routes = new Map<unknown, DeclaredRoute>();
  const hono = new OpenAPIHono<GovernedEnv>({
    defaultHook: (result) => {
      if (result.success) return;
      const { issues } = result.error;
      throw new Problem('invalid-request', describe(issues), {}, issues[0]?.path.join('.') || undefined);
    },
  });
  hono.onError((error, context) => refuse(options, error, context));
  hono.use(accessLog(options.log), secureHeaders(), admission(options, routes));
  for (const [name, route] of Object.entries(options.routes)) {
    const handler = decided(options, route, handlerOf(options, name));
    routes.set(handler, route);
    hono.openapi(route, handler);
  }
  const governed = hono.routes.length;
  return {
    service: options.service,
    fetch: (request, env) => hono.fetch(request, env),
    routes: () => listRoutes(hono, routes, governed),
    hono,
  };
}

/** Also for those who call without the compiler. */
function requireComplete<Routes extends DeclaredRoutes>(options: GovernedAppOptions<Routes>): void {
  const needed = ['service', 'authentication', 'control', 'quota', 'relations', 'policy', 'verdicts', 'log'] as const;
  for (const name of needed) {
    if (!options[name]) throw new Error(`a governed application needs ${name}: there is no default that lets pass`);
  }
  if (!options.authentication.tokens) throw new Error('a governed application needs authentication.tokens');
  for (const [name, route] of Object.entries(options.routes)) {
    if (!route.capability || !route.audit) throw new Error(`route ${name} is not declared by declareRoute()`);
    if (route.operationId !== name) throw new Error(`route ${name} has the operationId ${route.operationId}`);
  }
}

type AnyHandler = (context: Context<GovernedEnv>) => Response | Promise<Response>;

function handlerOf<Routes extends DeclaredRoutes>(
  { title, routes, handlers }: GovernedAppOptions<Routes>,
  name: string,
): AnyHandler {
  if (name === 'getOpenApi') {
    const document = openApiDocument(title, routes);
    return (context) => context.json(document);
  }
  const handler: unknown = Object.hasOwn(handlers, name) ? Reflect.get(handlers, name) : undefined;
  if (typeof handler !== 'function') throw new Error(`route ${name} has no handler`);
  return handler as AnyHandler;
}

function accessLog(log: Logger): MiddlewareHandler<GovernedEnv> {
  // Its fields are those below, none of which can hold a credential: looking for some costs more than the line.
  const lines = log.child({}, { redact: [] });
  return async (context, next) => {
    await next();
    const exchange = context.get('exchange');
    const { requestId, receivedAt, caller, route, span } = exchange;
    endSpan(exchange, context.res.status);
    const { method, path } = context.req;
    lines.info(
      {
        requestId,
        method,
        path,
        route: route?.operationId,
        status: context.res.status,
        ms: Date.now() - receivedAt,
        tenant: caller?.tenant,
        subject: caller?.subject,
        client: caller?.client,
        ...(span !== undefined && { traceId: span.spanContext().traceId }),
      },
      'request',
    );
  };
}

/** Answers with the problem; when no verdict is recorded yet, the refusal is it. */
function refuse(
  { service, verdicts, log }: GovernanceOptions & { readonly log: Logger },
  error: unknown,
  context: Context<GovernedEnv>,
): Response {
  const exchange = context.get('exchange');
  const problem = problemOf(error);
  if (problem.type === 'internal') {
    const { requestId, caller } = exchange;
    log.error({ err: error, requestId, tenant: caller?.tenant }, 'a request failed');
  }
  noteProblem(context, exchange, problem);
  if (!exchange.decided) {
    exchange.decided = true;
    verdicts.record(refusalRecord(service, context, exchange, problem));
  }
  const show = exchange.route?.showProblem;
  return show === undefined ? problem.toResponse(exchange.requestId) : show(problem, exchange.requestId);
}

const describe = (issues: readonly { readonly path: readonly PropertyKey[]; readonly message: string }[]): string =>
  issues.map(({ path, message }) => (path.length === 0 ? message : `${path.join('.')}: ${message}`)).join('; ');
