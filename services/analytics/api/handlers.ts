import { type Caller, type Handlers, Problem, platformTenant } from '@somagent/governance';
import { retentionDays } from '../warehouse/migrations.ts';
import type { ReportRange, Reports, Scope } from './reports.ts';
import type { Routes } from './routes.ts';
import type { Grouping } from './views.ts';

const dayMs = 24 * 3600 * 1000;
/** More rows in time than this nobody reads. */
const mostBuckets = 2000;

/** What a request says of its range. */
interface Asked {
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  readonly step?: number;
  readonly by?: Grouping | undefined;
}

/** Whose figures a caller sees. The tenant of the token decides; only the platform's own may name another. */
export function scopeOf({ tenant }: Caller, asked: string | undefined): Scope {
  if (tenant === platformTenant) return asked === undefined ? 'all' : { tenant: asked };
  if (asked !== undefined && asked !== tenant) {
    throw new Problem('forbidden', `tenant is "${asked}"; only an operator may name another tenant than its own`);
  }
  return { tenant };
}

/** @throws Problem that names the field */
export function rangeOf({ from, to, step = 3600, by }: Asked, now = new Date()): ReportRange {
  const end = to === undefined ? now : new Date(to);
  const begin = from === undefined ? new Date(end.getTime() - dayMs) : new Date(from);
  const length = end.getTime() - begin.getTime();
  if (length <= 0) throw new Problem('invalid-request', `from is ${begin.toISOString()}; it must lie before to`);
  if (length > (retentionDays + 1) * dayMs) {
    throw new Problem(
      'invalid-request',
      `from lies ${Math.ceil(length / dayMs)} days before to; ${retentionDays} are kept`,
    );
  }
  if (length / 1000 / step > mostBuckets) {
    const least = Math.ceil(length / 1000 / mostBuckets);
    throw new Problem('invalid-request', `step is ${step}; for this range it must be at least ${least} seconds`);
  }
  return { from: begin, to: end, step, by };
}

/** The handlers of the routes. */
export function createHandlers({ reports }: { readonly reports: Reports }): Handlers<Routes> {
  return {
    getLatencies: async (context) => {
      const asked = context.req.valid('query');
      const scope = scopeOf(context.get('caller'), asked.tenant);
      const rows = await reports.latencies(scope, rangeOf(asked), asked.slm === 'true');
      return context.json({ rows }, 200);
    },
    getUsage: async (context) => {
      const asked = context.req.valid('query');
      const rows = await reports.usage(scopeOf(context.get('caller'), asked.tenant), rangeOf(asked));
      return context.json({ rows: [...rows] }, 200);
    },
    getCost: async (context) => {
      const asked = context.req.valid('query');
      const rows = await reports.cost(scopeOf(context.get('caller'), asked.tenant), rangeOf(asked));
      return context.json({ rows: [...rows] }, 200);
    },
    getVerdictStatistics: async (context) => {
      const asked = context.req.valid('query');
      const rows = await reports.verdicts(scopeOf(context.get('caller'), asked.tenant), rangeOf(asked));
      return context.json({ rows }, 200);
    },
    getErrors: async (context) => {
      const asked = context.req.valid('query');
      const rows = await reports.errors(scopeOf(context.get('caller'), asked.tenant), rangeOf(asked));
      return context.json({ rows: [...rows] }, 200);
    },
    getSuccess: async (context) => {
      const asked = context.req.valid('query');
      const rows = await reports.success(scopeOf(context.get('caller'), asked.tenant), rangeOf(asked));
      return context.json({ rows }, 200);
    },
    getForecast: async (context) => {
      const { tenant, hours } = context.req.valid('query');
      const rows = await reports.forecast(scopeOf(context.get('caller'), tenant), hours, new Date());
      return context.json({ rows: [...rows] }, 200);
    },
    getAnomalies: async (context) => {
      const asked = context.req.valid('query');
      const rows = await reports.anomalies(scopeOf(context.get('caller'), asked.tenant), rangeOf(asked));
      return context.json({ rows: [...rows] }, 200);
    },
  };
}
