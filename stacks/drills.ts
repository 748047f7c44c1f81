/** A fault with the limits within which the platform must mend itself. Data: the runner in chaos/ executes it. */
export interface Drill {
  readonly name: string;
  readonly region: string;
  /** What holds before, during (within the limits) and after. */
  readonly hypothesis: string;
  readonly fault: { readonly kind: 'kill-pod'; readonly namespace: string; readonly selector: string };
  /** End the drill at once when this holds. */
  readonly stopCondition: string;
  readonly thresholds: {
    /** Longest time until service is back, in seconds. */
    readonly rtoSeconds: number;
    /** Most acknowledged writes that may be lost. */
    readonly lostWrites: number;
  };
}

/** The drills of a region. Limits of Postgres: ttl 20 s is the longest that Patroni waits for a silent primary. */
export function drillsOf(region: string, namespaces: Readonly<Record<string, string>>): readonly Drill[] {
  const kill = (plane: string, selector: string): Drill['fault'] => ({
    kind: 'kill-pod',
    namespace: namespaces[plane] ?? `${region}-${plane}`,
    selector,
  });
  return [
    {
      name: 'postgres-primary-killed',
      region,
      hypothesis: 'every acknowledged write is there after the primary is killed',
      fault: kill('data', 'app.kubernetes.io/instance=postgres,role=primary'),
      stopCondition: 'no primary for 60 s',
      thresholds: { rtoSeconds: 30, lostWrites: 0 },
    },
    {
      name: 'worker-killed',
      region,
      hypothesis: 'a session whose worker is killed mid-turn is answered',
      fault: kill('services', 'app.kubernetes.io/name=orchestrator'),
      stopCondition: 'no turn answered for 120 s',
      thresholds: { rtoSeconds: 60, lostWrites: 0 },
    },
    {
      name: 'gateway-killed',
      region,
      hypothesis: 'clients that retry get an answer while one gateway is killed',
      fault: kill('services', 'app.kubernetes.io/name=gateway'),
      stopCondition: 'no request answered for 60 s',
      thresholds: { rtoSeconds: 10, lostWrites: 0 },
    },
  ];
}
