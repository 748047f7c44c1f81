import type { ListedRoute } from './route-list.ts';

/** What a pod of the platform lists and how it answers when nobody says who he is. */
export interface CoveredPod {
  readonly service: string;
  readonly pod: string;
  /** What the pod lists; null when it serves an API and lists nothing. */
  readonly routes: readonly ListedRoute[] | null;
  /** Answers to requests without a credential, one for each listed route. */
  readonly answers: readonly BareAnswer[];
}

/** An answer of the real server to a request without a credential. */
export interface BareAnswer {
  readonly method: string;
  /** Template of the path that was asked. */
  readonly path: string;
  readonly status: number;
  /** Type of the problem in the body; null when there was none. */
  readonly problem: string | null;
  /** `x-request-id` of the answer; null when there was none. */
  readonly requestId: string | null;
}

/** What coverage is computed from. */
export interface CoverageInput {
  readonly pods: readonly CoveredPod[];
  /** Every capability that the policy's data gives to somebody. */
  readonly capabilities: ReadonlySet<string>;
  /** Ids of those requests whose refusal is in the verdict log. */
  readonly recorded: ReadonlySet<string>;
}

/** An endpoint that is not protected, and why. */
export interface CoverageGap {
  readonly service: string;
  readonly pod: string;
  /** `GET /v1/sessions`; `*` where a pod lists nothing. */
  readonly endpoint: string;
  readonly problems: readonly string[];
}

/** How many endpoints there are and which are not protected. */
export interface CoverageReport {
  /** Routes of pods, each pod's counted by itself. */
  readonly endpoints: number;
  readonly protected: number;
  readonly gaps: readonly CoverageGap[];
}

/**
 * Computes which endpoints are protected. One is when its route is declared with a capability that the policy knows, the
 * server itself refuses a request without a credential, and that refusal is a recorded verdict.
 */
export function coverageOf({ pods, capabilities, recorded }: CoverageInput): CoverageReport {
  let endpoints = 0;
  const gaps: CoverageGap[] = [];
  for (const { service, pod, routes, answers } of pods) {
    if (routes === null) {
      endpoints += 1;
      gaps.push({ service, pod, endpoint: '*', problems: ['the pod serves an API and lists no routes'] });
      continue;
    }
    for (const route of routes) {
      endpoints += 1;
      const answer = answers.find(({ method, path }) => method === route.method && path === route.path);
      const problems = [...declarationProblems(route, capabilities), ...answerProblems(answer, recorded)];
      if (problems.length > 0) gaps.push({ service, pod, endpoint: `${route.method} ${route.path}`, problems });
    }
  }
  return { endpoints, protected: endpoints - gaps.length, gaps };
}

function declarationProblems({ capability, audit }: ListedRoute, capabilities: ReadonlySet<string>): string[] {
  if (capability === null || audit === null) return ['it was added past declareRoute(): no capability, no audit class'];
  return capabilities.has(capability) ? [] : [`the policy knows no capability ${capability}`];
}

function answerProblems(answer: BareAnswer | undefined, recorded: ReadonlySet<string>): string[] {
  if (answer === undefined) return ['the server did not answer'];
  const { status, problem, requestId } = answer;
  if (status !== 401 || problem !== 'urn:somagent:problem:token-missing') {
    return [`without a token it answers ${status}${problem === null ? '' : ` (${problem})`}`];
  }
  return requestId !== null && recorded.has(requestId) ? [] : ['its refusal is not in the verdict log'];
}

/** A path that a template can stand for: what is in the braces does not matter before a credential is asked for. */
export const samplePath = (template: string): string =>
  template.replaceAll(/\{[^}]*\}/g, '00000000-0000-4000-8000-000000000000').replaceAll('*', 'anything');

/** A method that a listed route answers to. */
export const sampleMethod = (method: string): string => (method === 'ALL' ? 'GET' : method);
