import type { ChartDeployment } from '../bridge/index.ts';
import { Plane, type PlaneArgs, type PlaneOptions } from './plane.ts';

/** What every other plane stands on: the Job that makes all secrets inside the cluster. */
export class SystemPlane extends Plane {
  /** Works when every secret of the region is there. */
  readonly secrets: ChartDeployment;

  constructor(name: string, args: PlaneArgs, opts: PlaneOptions) {
    super('somagent:region:SystemPlane', name, args, opts);
    this.secrets = this.deploy('bootstrap');
    this.registerOutputs({});
  }
}
