mod alarm; mod baseline; mod bundle; mod grid; mod health; mod limit; mod model; mod stage_a; mod window;
